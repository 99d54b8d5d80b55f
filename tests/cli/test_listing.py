"""``fedimb list``: tables that say what a part needs and what of it leaves a site."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.cli import main
from fedimb.cli.listing import PLURALS, flags_of, leaves, prior_of, sentence, table
from fedimb.cli.matrix import render
from fedimb.config.combinations import Cell, matrix
from fedimb.contracts.base import Contract, Record
from fedimb.registry import Entry


def test_every_kind_but_the_halves_of_a_method_is_listed():
    assert set(PLURALS.values()) == set(registry.KINDS) - {"client", "contract"}


def test_every_table_fits_and_names_every_part(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) < 100
    for plural, kind in PLURALS.items():
        assert f"{plural}:\n" in text
        for name in registry.names(kind):
            assert f"\n  {name} " in text
    assert "`" not in text


def test_one_kind_and_a_wrong_one(capsys):
    assert main(["list", "calibrations"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("calibrations:\n")
    assert "losses" not in text
    la_post = next(line for line in text.splitlines() if line.startswith("  la_post"))
    assert "Post-hoc logit adjustment" in la_post
    assert "global" in la_post
    assert main(["list", "calibration"]) == 0
    assert capsys.readouterr().out == text
    assert main(["list", "lossses"]) == 2


def rows_of(text):
    """Setting -> (default, what follows on its first line) of printed settings."""
    lines = text[text.index("  setting") :].splitlines()
    at = lines[0].index("meaning")
    columns = {line[2:].split(" ")[0]: line for line in lines[1:] if line[2:3].strip()}
    return {name: (line[:at].split(maxsplit=1)[1].strip(), line[at:]) for name, line in columns.items()}


def test_one_part_with_its_settings(capsys):
    assert main(["list", "strategies", "scope"]) == 0
    text = capsys.readouterr().out
    assert "  scope  SCOPE: choose once, before training" in text
    assert "x.profile" in text
    assert max(map(len, text.splitlines())) < 100
    assert "`" not in text
    rows = rows_of(text)
    assert list(rows) == [name for name in registry.parameters("strategy", "scope") if name != "inner"]
    assert rows["warmup"] == ("5", "federated rounds before the choice, part of rounds; above 0")
    assert rows["encoder"][0] == "{name: global_features}"
    assert main(["list", "strategy", "scope"]) == 0
    assert capsys.readouterr().out == text
    assert main(["list", "strategies", "scoop"]) == 2
    assert "Did you mean 'scope'?" in capsys.readouterr().err
    assert main(["list", "strategies", "plain"]) == 0
    assert "strategy plain has no settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "name", "setting", "default", "meaning"),
    [
        ("strategies", "active", "first", "null", "rows each client has labelled in the first cycle"),
        ("strategies", "fairfal", "which", "adaptive", "the model whose uncertainty counts"),
        ("strategies", "fairfal", "budget", "10", "rows each client has labelled per cycle"),
        ("strategies", "fedssg", "training", "{steps: 500}", "how the generator is trained"),
        ("losses", "vs", "gamma", "0.15", "exponent of the factors"),
    ],
)
def test_settings_show_default_and_meaning(capsys, kind, name, setting, default, meaning):
    assert main(["list", kind, name]) == 0
    shown = rows_of(capsys.readouterr().out)[setting]
    assert shown[0] == default
    assert shown[1].startswith(meaning)


def test_all_methods_come_with_their_settings(capsys):
    assert main(["list", "strategies"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) < 100
    for name in registry.names("strategy"):
        assert f"settings of strategy {name}:\n" in text or f"strategy {name} has no settings\n" in text
    assert main(["list"]) == 0
    assert "settings of" not in capsys.readouterr().out


def test_what_leaves_a_site_comes_from_the_declarations():
    with registry.isolated():
        record = Record("x.mine", "metrics", "rows", "aggregate")
        contract = Contract("mine", train=(record,), queries={"mine_ask": (record, record)})
        registry.register("contract", "mine")(contract)
        registry.register("objective", "mine_term", sends=(record,), needs_aggregator="mine_aggregator")(lambda: None)
        assert leaves(Entry("strategy", "mine", object)) == "weights, x.mine"
        assert leaves(registry.get("objective", "mine_term")) == "weights, x.mine"
        assert leaves(Entry("aggregator", "mine_aggregator", object)) == "weights, x.mine"
        assert leaves(Entry("aggregator", "another", object)) == "weights"
    assert leaves(Entry("loss", "x", object, {"needs_prior": True})) == "weights, x.counts"
    assert leaves(registry.get("strategy", "plain")) == "weights"


def test_prior_and_flags_in_words():
    assert prior_of(Entry("loss", "a", object, {"needs_prior": True})) == "global counts"
    assert prior_of(Entry("loss", "a", object, {"uses_local_counts": True})) == "local counts"
    assert prior_of(Entry("loss", "a", object, {"needs_prior": False})) == "none"
    entry = Entry("loss", "a", object, {"needs_prior": True, "changes_head": True, "linear": False, "cut": "both ends"})
    assert flags_of(entry) == "changes head, cut both ends"
    when = {("kcfu", True): {"own_loss": "kcfu=true", "adjusts_logits": True}}
    assert flags_of(Entry("strategy", "a", object, {"cycles": True, "when": when})) == (
        "cycles, adjusts logits with kcfu=true"
    )


def documented(text):
    def part():
        return None

    part.__doc__ = text
    return Entry("loss", "part", part)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("One thing. Another thing.", "One thing"),
        ("Hsu et al. 2019: momentum.", "Hsu et al. 2019: momentum"),
        ("Split over\ntwo lines.\n\nMore.", "Split over two lines"),
        ("With ``code`` in it\n\nArgs:\n    x: y", "With code in it"),
        ("Args:\n    x: y", "``fedimb list``: tables that say what a part needs and what of it leaves a site"),
    ],
)
def test_first_sentence(text, shown):
    assert sentence(documented(text)) == shown.replace("`", "")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-z_]{1,24}", fullmatch=True), st.text("ab c.", max_size=120)),
        min_size=1,
        max_size=4,
    )
)
def test_tables_fit_whatever_names_and_sentences(parts):
    entries = [Entry("loss", name, documented(text).factory, {"needs_prior": True}) for name, text in parts]
    lines = table(entries)
    assert max(map(len, lines)) < 100
    for name, _ in parts:
        assert any(line.startswith(f"  {name} ") for line in lines)


def test_twelve_by_eleven_is_cut_to_the_terminal_and_nothing_is_lost():
    first = [f"aggregator_{i:02}" for i in range(12)]
    second = [f"long_loss_name_{i:02}" for i in range(11)]
    cells = [
        Cell(("aggregator", a), ("loss", b), f"aggregator '{a}' cannot take loss '{b}'" if (i + j) % 5 == 0 else None)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
    ]
    text = render(cells)
    assert max(map(len, text.splitlines())) < 100
    assert text.count("[1]") == sum(cell.reason is not None for cell in cells) + 1  # one reason for them all
    assert text.count(" ok") == sum(cell.reason is None for cell in cells)
    assert "this aggregator cannot take this loss" in text
    assert f"{sum(c.reason is None for c in cells)} of 132 pairs" in text


def test_the_longer_kind_goes_down():
    cells = [Cell(("loss", "a"), ("model", f"m{i}"), "no" if i else None) for i in range(3)]
    lines = render(cells).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["model", "\\", "loss", "a"],
        ["m0", "ok"],
        ["m1", "[1]"],
        ["m2", "[1]"],
    ]


def test_the_registered_matrix_counts_every_pair(capsys):
    assert main(["list", "combinations"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) < 100
    cells = matrix()
    assert f"{sum(c.reason is None for c in cells)} of {len(cells)} pairs" in text
