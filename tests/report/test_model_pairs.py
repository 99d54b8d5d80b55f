"""Two models in words and tables: the sentence says what the tests say, and lines fit a terminal."""

import io

import pytest

pytest.importorskip("jinja2")

from scored_rows import scored

from fedimb.report.html.models import models_page
from fedimb.report.model_pairs import models_text, sentence, tables
from fedimb.study.model_pairs import compare_models, compare_seeds
from fedimb.text import width


@pytest.fixture(scope="module")
def better():
    return compare_models(scored(4, "new <b>"), scored(0.5, "old", draw=1))


@pytest.fixture(scope="module")
def over_seeds():
    sides = [
        {seed: scored(skill, name, seed, draw) for seed in range(8)}
        for skill, name, draw in ((2, "new", 0), (1, "old", 1))
    ]
    return compare_seeds(*sides, "mild", ("new", "old"))


def test_a_significant_difference_is_claimed_with_its_figures(better):
    test = better.recall.minority
    said = sentence(better)
    assert said.startswith(
        "On the same 102 test rows new <b> finds more of the minority classes than old: minority recall "
    )
    assert f"{test.recall_a:.3f} against {test.recall_b:.3f}, {test.difference:+.3f} (95 % interval " in said
    assert (
        "After Holm's correction over 3 classes, recall differs in 3 (new <b> better: frequent, middle, rare)" in said
    )


def test_the_other_way_round_it_is_worse():
    said = sentence(compare_models(scored(0.5, "old", draw=1), scored(4, "new")))
    assert "old finds less of the minority classes than new" in said


def test_no_difference_is_never_equality():
    said = sentence(compare_models(scored(1, "one"), scored(1, "two", draw=1)))
    assert "no difference in minority recall between one and two is shown" in said
    assert "That does not show them equal." in said
    same = sentence(compare_models(scored(1, "one"), scored(1, "two")))
    assert "one and two find the same rows of the minority classes" in same
    assert same.endswith("recall differs in no class and AUROC in no class.")


def test_without_a_common_minority_the_headline_is_macro_recall():
    found = compare_models(scored(4, "new"), scored(0.5, "old", draw=1, minority=(1,)))
    assert "new finds more of the classes than old: macro recall" in sentence(found)
    assert "minority classes" not in models_text(found).split("only A/B")[1].split("AUROC:")[0]


def test_over_seeds_the_claim_is_over_seeds(over_seeds):
    said = sentence(over_seeds)
    effect = f"{over_seeds.minority.test.effect:+.3f}"
    assert said.startswith(f"Over 8 seeds new has higher minority recall than old: minority recall {effect} (")
    assert "On single seeds' test rows new is significantly better in" in said
    missing = compare_seeds(
        {0: scored(2, "new"), 1: "new failed (disk full)"},
        {s: scored(1, "old", s, 1) for s in (0, 1)},
        labels=("new", "old"),
    )
    assert sentence(missing).startswith("Over 1 seed nothing is claimed, as 1 more lack a run of new or old:")
    assert "seed 1 is missing: new failed (disk full)" in models_text(missing)


def test_the_text_fits_a_terminal_and_says_how_it_was_tested(better, over_seeds):
    for found in (better, over_seeds):
        text = models_text(found, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert max(map(width, text.splitlines())) < 100
        for words in (
            "McNemar's exact conditional test",
            "DeLong's test",
            "Holm corrects over the classes",
            "2,000 paired",
        ):
            assert words in " ".join(text.split())
    assert "Seeds are not pooled as rows" in models_text(over_seeds)
    recall, auroc = tables(better)
    assert [line[0] for line in recall.lines] == [
        "minority classes",
        "macro",
        "accuracy",
        "frequent",
        "middle",
        "rare *",
    ]
    assert [line[0] for line in auroc.lines] == ["frequent", "middle", "rare *"]
    assert all(len(line) == len(table.head) for table in (recall, auroc, *tables(over_seeds)) for line in table.lines)
    assert recall.lines[-1][-1].endswith("+")


def test_the_page_has_the_same_figures_and_no_live_markup(better, over_seeds):
    page = models_page([better])
    assert "new &lt;b&gt; finds more" in page
    assert "new <b>" not in page
    assert "<script" not in page
    for table in tables(better):
        for line in table.lines:
            assert f"<td>{line[-1].replace('<', '&lt;')}</td>" in page
    assert models_page([over_seeds]).count("<table>") == 3
