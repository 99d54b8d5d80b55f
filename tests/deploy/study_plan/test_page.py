"""The page lists everything the door would let out, with sizes that are upper bounds."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from small_runs import needs_of_methods
from study_plans import plan_of, run_config

from fedimb import registry
from fedimb.config.parts import build_model, contracts_of
from fedimb.contracts import platform as names
from fedimb.contracts.base import Contract, Record
from fedimb.deploy.study_plan.outbound_records import (
    EVERY,
    Sizes,
    count_values,
    message_types,
    outbound_records,
    queries_of,
    sizes_of,
)
from fedimb.deploy.study_plan.page import as_html, as_markdown, format_bytes
from fedimb.privacy.egress_filter import declared_for
from fedimb.records import payload_bytes

SIZES = Sizes(classes=3, domains=2, features=7, parameters=24, weight_bytes=96, buffer_bytes=0)


def table(config, sizes=SIZES, rounds=5):
    return outbound_records(config, sizes, rounds)


@pytest.mark.parametrize("method", sorted(set(registry.names("contract")) - {"platform"}))
def test_every_record_the_door_lets_out_is_in_the_table(method):
    config = run_config(f"strategy={method}", *needs_of_methods(method))
    rows = table(config, SIZES.model_copy(update={"buffer_bytes": 8}))
    listed = {(row.message, row.record) for row in rows}
    for kind in message_types(config):
        for record in declared_for(kind, contracts_of(config)):
            assert (kind, record.key) in listed or (EVERY, record.key) in listed
    assert (EVERY, names.AUDIT) in listed
    assert len(listed) == len(rows)


@pytest.mark.parametrize(
    ("provenance", "query"),
    [
        ("clear_sum", names.CLASS_COUNTS),
        ("secure_sum", names.MASKED_COUNTS),
        ("dp_sum", names.NOISY_COUNTS),
        ("none", None),
        ("estimated", None),
    ],
)
def test_counts_are_asked_for_as_the_prior_says_and_in_no_other_way(provenance, query):
    config = run_config(f"prior.provenance={provenance}")
    counts = {names.CLASS_COUNTS, names.MASKED_COUNTS, names.NOISY_COUNTS} & set(queries_of(config))
    assert counts == ({query} if query else set())
    protections = [row.protection for row in table(config) if row.record == names.COUNTS]
    if provenance == "dp_sum":
        assert "epsilon 1," in protections[0]
    if provenance in ("secure_sum", "dp_sum"):
        assert "only the sum" in protections[0]


def test_what_is_masked_is_listed_as_such_and_what_is_not_sent_not_at_all():
    words = ("data.test={name: none}", "data.validation=0.2", "calibration=[none,la_post]")
    clear, secure = (table(run_config(*words, f"evaluation.secure={on}")) for on in ("false", "true"))
    clear, secure = ({(row.message, row.record): row for row in rows} for rows in (clear, secure))
    assert clear.keys() - secure.keys() == {("train", names.CONFUSION), ("query.scored", names.SCORES)}
    row = secure["query.masked_scores", names.SCORES]
    assert "only the sum" in row.protection
    assert row.most_bytes == clear["query.scored", names.SCORES].most_bytes == 2 * 8 * clear_classes(clear) ** 2


def clear_classes(rows):
    return rows["query.class_counts", names.COUNTS].most_bytes // 8


def test_clipping_and_noise_stand_beside_the_weights():
    words = ("privacy.clip=0.5", "aggregation_weight=uniform")
    [cut] = [row.protection for row in table(run_config(*words)) if row.record == names.ARRAYS]
    [noised] = [row.protection for row in table(run_config(*words, "privacy.noise=2.0")) if row.record == names.ARRAYS]
    assert cut.endswith("this site's own update, cut to a norm of 0.5")
    assert noised.endswith("cut to a norm of 0.5 and with its share of noise (2 x 0.5)")
    tree = ("clients.count=4", "clients.regions=[2,2]", "clients.min_members=2")
    [summed] = [row.protection for row in table(run_config(*words, *tree)) if row.record == "x.partial"]
    assert summed.endswith("a sum over this region's sites, each site cut to a norm of 0.5")


def test_terms_of_an_aggregator_are_listed():
    rows = {row.record: row for row in table(run_config("aggregator=scaffold"))}
    assert rows["x.variate"].most_bytes == 24 * 8  # float64 is the widest it may be
    assert rows["arrays"].most_bytes == 96
    assert rows["arrays"].often == "once in each of at most 5 rounds"
    assert names.BUFFERS not in rows


def test_another_model_is_not_taken_to_be_as_large_as_this_one():
    contract = Contract(
        "other", queries={"teach": (Record("x.generator", "arrays", "weights of a generator", "model"),)}
    )
    with registry.isolated():
        registry.register("strategy", "other")(type("Other", (), {}))
        registry.register("contract", "other")(contract)
        config = run_config().model_copy(update={"strategy": {"other": {}}})
        rows = {row.record: row for row in table(config)}
    assert (rows["x.generator"].message, rows["x.generator"].most_bytes) == ("query.teach", None)
    assert rows["x.generator"].shape == "any"


def test_sizes_are_those_of_the_model():
    config = run_config("model=mlp")
    model = build_model(config, 3, (4,))
    sizes = sizes_of(config, 3, (4,))
    assert sizes.parameters == sum(p.numel() for p in model.parameters())
    assert sizes.weight_bytes == 4 * sizes.parameters
    assert sizes.features == model.head.weight.shape[1]


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("C", 3),
        ("7 x C", 21),
        ("3 x C + 2", 11),
        ("C x d", 21),
        ("2 x C + 1", 7),
        ("1", 1),
        ("C x C or C x 2 x 2", 12),
        ("C x e", None),
        ("C x C or C x e", None),
        ("", None),
    ],
)
def test_shapes_in_numbers(shape, values):
    assert count_values(shape, SIZES) == values


def test_declared_shapes_hold_for_what_clients_send():
    """SCOPE's profile and the class counts, as the client code builds them."""
    from flwr.app import RecordDict

    from fedimb.records import array_record

    profile = {
        "counts": np.zeros(3, np.int32),
        "mean": np.zeros((3, 3), np.float32),
        "variance": np.zeros((3, 3), "f4"),
    }
    rows = {row.record: row for row in table(run_config("strategy=scope", "prior.provenance=clear_sum"))}
    assert payload_bytes(RecordDict({"x": array_record(profile)})) == rows["x.profile"].most_bytes
    counts = {"counts": np.zeros(3, np.int64)}
    assert payload_bytes(RecordDict({"x": array_record(counts)})) == rows["x.counts"].most_bytes


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags, self.cells = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def plan():
    return plan_of(run_config("strategy=scope", "prior.provenance=dp_sum"))


def test_the_page_shows_the_coordinators_text_as_text(plan):
    page = as_html(plan)
    found = Cells()
    found.feed(page)
    assert plan.purpose in found.cells
    assert not found.tags & {"b", "script", "link", "img", "iframe"}
    for text in (plan.sha, plan.config_sha, plan.release.bundle, "heart", "schwer krank", "Dr. Jürgen Müller"):
        assert text in page
    for row in plan.leaves:
        assert {row.message, row.record, row.content} <= set(found.cells)
    assert "http" not in page.split("</style>")[1]


def test_the_markdown_page_has_a_row_per_record(plan):
    page = as_markdown(plan)
    assert r"Größe \| \<b\>Übung\</b\>" in page  # a bar in a cell ends no cell, and markup is shown
    lines = [line for line in page.splitlines() if line.startswith(("| train", "| query", "| every"))]
    assert len(lines) == len(plan.leaves)
    assert {line.replace("\\|", "").count("|") for line in lines} == {9}
    assert "| rounds | 1 to 8 |" in page
    assert "| local.lr |" in page
    assert "2126-01-01T00:00:00Z; nothing runs" in page


NASTY = "a](http://evil) <script>x</script> **b** `c` _d_ # e | f ~~g~~ &amp; ![h](i)"


def test_no_text_of_a_plan_is_markup_on_its_page(plan):
    """Purpose and contacts are the coordinator's words, and so are settings, which may hold anything."""
    tracking = {**plan.config["tracking"], "experiment": "x |\n\n# Approved\u202e\x1b[2J\u200b"}
    settings = {**plan.config, "tracking": tracking}
    changed = plan.model_copy(update={"purpose": NASTY, "contacts": [NASTY], "tags": [NASTY], "config": settings})
    page = as_markdown(changed)
    cells = [line for line in page.splitlines() if line.startswith("| Purpose")]
    assert len(cells) == 1
    shown = cells[0].removeprefix("| Purpose | ").removesuffix(" |")
    assert re.sub(r"\\([^A-Za-z0-9\s])", r"\1", shown) == NASTY  # each mark has a backslash before it
    assert not re.search(r"(?<!\\)[*`\[\]<>|~&#!]", shown)
    assert "\n# Approved" not in page
    assert r"x \|\\n\\n\# Approved\\u202e\\x1b\[2J\\u200b" in page
    found = Cells()
    found.feed(as_html(changed))
    assert sum(NASTY in cell for cell in found.cells) == 3
    assert r"x |\n\n# Approved\u202e\x1b[2J\u200b" in found.cells
    assert not found.tags & {"script", "img", "a", "b"}


def test_who_takes_part_is_on_the_page(plan):
    for page in (as_markdown(plan), as_html(plan)):
        for site in plan.sites:
            assert site.fingerprint in page
        assert plan.coordinator_fingerprint in page


def test_bytes_for_people():
    cases = [(None, "not limited"), (0, "0 bytes"), (999, "999 bytes"), (20_100_000, "20.1 MB")]
    assert [format_bytes(count) for count, _ in cases] == [text for _, text in cases]
