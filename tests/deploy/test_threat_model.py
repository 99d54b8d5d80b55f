"""The pages for hospitals: every record that can leave is in the threat model, and every test they name exists."""

import ast
import itertools
import re
from functools import cache
from pathlib import Path

import pytest

from fedimb import registry
from fedimb.cli import deploy, deploy_runs, deploy_standby, node, node_decisions
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


def promises(text):
    """(promise, the cell with its tests) of every table whose last column is ``test``, the list of promises first."""
    found, header = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line[:1] == "|" else []
        if not cells or set(cells[0]) == {"-", " ", "|"} or line.startswith("| ---"):
            header = header if cells else []
        elif not header:
            header = cells
        elif header[-1].strip(" |") == "test":
            found.append((cells[0], cells[-1]))
    return found


def unproved(text, known):
    """Promises without a test, or with a name that no test has."""
    lacking = []
    for promise, tests in promises(text):
        named = set(re.findall(r"\btest_\w+", tests))
        if (not named and tests.strip(" |") != "the same") or not named <= known:
            lacking.append(promise)
    return lacking


@cache
def functions():
    """Test functions by name, of the files that have one the page names: reading all takes ten times as long."""
    named = set(re.findall(r"\btest_\w+", (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")))
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if named.isdisjoint(re.findall(r"^def (test_\w+)", text, re.MULTILINE)):
            continue
        for one in ast.parse(text).body:
            if isinstance(one, ast.FunctionDef) and one.name.startswith("test_"):
                found.setdefault(one.name, []).append(one)
    return found


def can_fail(node):
    """Whether a test compares anything, and is neither skipped nor expected to fail whatever happens."""
    marks = {ast.unparse(one).removeprefix("pytest.mark.").partition("(")[0] for one in node.decorator_list}
    calls = [ast.unparse(one.func) for one in ast.walk(node) if isinstance(one, ast.Call)]
    checks = any(re.search(r"(^|[._])(raises|assert\w*|check_\w+)$", call) for call in calls)
    return not marks & {"skip", "xfail"} and (checks or any(isinstance(one, ast.Assert) for one in ast.walk(node)))


def test_no_promise_without_its_test():
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    found = promises(text)
    assert len(found) > 50
    assert unproved(text, functions().keys()) == []
    for words in ("every reply is screened", "a site answers at most the rounds, queries and runs of the plan"):
        assert any(promise.startswith(words) for promise, _ in found)
    for promise, tests in found:  # one that loses its test, or whose test was renamed, is found
        assert unproved(text, functions().keys() - set(re.findall(r"\btest_\w+", tests))) or "test_" not in tests
        assert promise in unproved(text.replace(f" | {tests} |\n", " | by inspection |\n", 1), functions().keys())


def test_the_tests_of_promises_can_fail():
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btest_\w+", text)) & functions().keys()
    assert len(named) > 100
    assert sorted(name for name in named if not any(map(can_fail, functions()[name]))) == []
    for body in ("    pass", "    run()"):
        assert not can_fail(ast.parse(f"def test_one():\n{body}").body[0])
    assert not can_fail(ast.parse("@pytest.mark.skip\ndef test_one():\n    assert run()").body[0])


def test_every_command_the_pages_name_exists():
    verbs = {
        f"{verb} {action.name}"
        for verb, modules in (("node", (node, node_decisions)), ("deploy", (deploy, deploy_runs, deploy_standby)))
        for module in modules
        for action in vars(module).values()
        if isinstance(action, type) and issubclass(action, Action) and action is not Action
    }
    for page in ("hospital.md", "coordinator.md", "threat-model.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        named = set(re.findall(r"\bfedimb ((?:node|deploy) [a-z][a-z-]+)", text))
        assert named <= verbs, page
        assert page == "threat-model.md" or named
