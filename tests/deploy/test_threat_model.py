"""The pages for hospitals: every record that can leave is in the threat model, and every test they name exists."""

import itertools
import re
from functools import cache
from pathlib import Path

import pytest

from fedimb import registry
from fedimb.cli import deploy, deploy_runs, node, node_decisions
from fedimb.cli.verbs import Action
from fedimb.contracts.platform import AUDIT_HEAD, SITE_SIGNATURE
from fedimb.contracts.variate import VARIATE

ROOT = Path(__file__).parents[2]
EVERY = "every reply"
OF_THEIR_OWN = ("entry-points.md", "testing-plug-ins.md")
"""Pages that show tests which the reader is to write, as those do that add a part."""
PAGES = sorted(
    path.name
    for path in (ROOT / "docs").glob("*.md")
    if path.name not in OF_THEIR_OWN and not path.name.startswith("add-a")
)
"""All but the pages that show tests which the reader is to write."""


def declared():
    """(message, record) of everything the exit door lets out, whatever the method."""
    found = {(EVERY, AUDIT_HEAD.key), (EVERY, SITE_SIGNATURE.key), (EVERY, "x.state"), ("train", VARIATE.key)}
    for name in registry.names("contract"):
        contract = registry.build("contract", name)
        found |= {("train", record.key) for record in contract.train}
        found |= {(query, record.key) for query, records in contract.queries.items() for record in records}
    found |= {
        ("train", record.key)
        for term in registry.names("objective")
        for record in registry.flags("objective", term).get("sends", ())
    }
    return {(message, key) for message, key in found if message == EVERY or key != "x.state"}


def listed():
    """(message, record) of every row of the page's table."""
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    pairs = set()
    for messages, records, *rest in rows:
        keys = re.findall(r"`([\w.]+)`", records)
        if len(rest) != 2 or not keys:
            continue
        names = [EVERY] if EVERY in messages else re.findall(r"`(\w+)`", messages)
        pairs |= set(itertools.product(names, keys))
    return pairs


@cache
def all_tests():
    """Names of all tests there are, and of the files they are in."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    names = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    return names | {file.stem for file in files}


def test_every_record_that_can_leave_is_in_the_threat_model_and_no_other():
    assert sorted(listed()) == sorted(declared())


@pytest.mark.parametrize("page", PAGES)
def test_every_test_a_page_names_exists(page):
    named = set(re.findall(r"\btest_\w+", (ROOT / "docs" / page).read_text(encoding="utf-8")))
    assert named <= all_tests()


def test_no_promise_without_its_test():
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    promises = text.split("## What is promised, and by which test")[1].split("###")[0]
    rows = [line for line in promises.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    assert all("`test_" in row.split("|")[2] for row in rows)


def test_every_command_the_pages_name_exists():
    verbs = {
        f"{verb} {action.name}"
        for verb, modules in (("node", (node, node_decisions)), ("deploy", (deploy, deploy_runs)))
        for module in modules
        for action in vars(module).values()
        if isinstance(action, type) and issubclass(action, Action) and action is not Action
    }
    for page in ("hospital.md", "coordinator.md", "threat-model.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        named = set(re.findall(r"\bfedimb ((?:node|deploy) [a-z][a-z-]+)", text))
        assert named <= verbs, page
        assert page == "threat-model.md" or named
