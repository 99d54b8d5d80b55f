"""The page's parts: class orders by seed, sentences, methods' panels, inlined pictures."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from fedimb.evaluation.intervals import t_interval, wilson
from fedimb.report.html.classes import columns, matrix, ranks_of, recalls
from fedimb.report.html.curves import points
from fedimb.report.html.headline import missing, sentence
from fedimb.report.html.heat import recall_interval, shade
from fedimb.report.html.legend import foremost, legend
from fedimb.report.html.numbers import amount, best, difference, ranked, rows_of, shown
from fedimb.report.html.panels import LARGEST, panels
from fedimb.report.html.pictures import figure, inline, svg
from fedimb.study.results import COLUMNS

from .studies import failed, plain, result, setting, study


def in_folder(one, path, counts):
    """The result with a run folder whose clients hold ``counts``."""
    path.mkdir(parents=True)
    (path / "partition.json").write_text(json.dumps({"counts": counts, "sha": "f" * 64}))
    return replace(one, folder=path)


def test_where_ranks_move_classes_are_matched_by_size(tmp_path):
    first = in_folder(result("fedavg", 0, (20, 10, 2)), tmp_path / "a", [[40, 12, 2]])
    second = in_folder(result("fedavg", 1, (4, 12, 18)), tmp_path / "b", [[2, 12, 40]])
    rows = rows_of(study([first, second]), "default")
    ranks = ranks_of(setting(), rows)
    assert ranks.moved
    assert ranks.names == ("1", "2", "3")
    assert recalls(rows[0], ranks) == pytest.approx(np.array([[1.0, 0.5, 0.1], [0.9, 0.6, 0.2]]))
    total = matrix(rows[0], ranks)
    assert total.diagonal().tolist() == [38, 22, 6]
    assert total[2, 0] == 18  # seed 0 calls its rarest class 2 class 0, its largest
    assert total[2, 1] == 16  # seed 1 calls its rarest class 0 class 1, its second


def test_a_seed_of_unknown_order_is_left_out_only_where_ranks_move(tmp_path):
    known = in_folder(result("fedavg", 0, (20, 10, 2)), tmp_path / "a", [[2, 12, 40]])
    rows = rows_of(study([known, result("fedavg", 1, (20, 10, 2))]), "default")
    assert len(recalls(rows[0], ranks_of(setting(), rows))) == 1
    same = in_folder(result("fedavg", 0, (20, 10, 2)), tmp_path / "b", [[40, 12, 2]])
    rows = rows_of(study([same, result("fedavg", 1, (20, 10, 2))]), "default")
    ranks = ranks_of(setting(), rows)
    assert not ranks.moved
    assert ranks.names == ("cat", "dog", "fox")
    assert len(recalls(rows[0], ranks)) == 2


def test_recall_of_one_run_has_wilsons_interval_of_several_the_t():
    rows = rows_of(plain(seeds=1), "default")
    ranks = ranks_of(setting(), rows)
    low, high = wilson(2, 20)
    assert recall_interval(rows[0], ranks, 2) == pytest.approx((0.1, float(low), float(high)))
    rows = rows_of(plain(), "default")
    assert recall_interval(rows[0], ranks_of(setting(), rows), 2) == pytest.approx(t_interval([0.1, 0.15, 0.2]))


def test_a_curve_is_of_the_rounds_all_runs_scored():
    runs = [result("fedavg", s, (20, 10, 2 + 2 * s)) for s in range(2)]
    runs[1] = replace(runs[1], curve=runs[1].curve[:2])
    row = rows_of(study(runs), "default")[0]
    found = points(row, "minority_recall")
    assert [at for at, *_ in found] == [1, 2]
    assert found[1][1:] == pytest.approx(t_interval([0.1 * 2 / 3, 0.2 * 2 / 3]))
    assert points(rows_of(study([replace(runs[0], curve=())]), "default")[0], "minority_recall") == []


def test_long_curves_keep_their_ends():
    curve = [(at, {"macro_recall": at / 1000}) for at in range(1, 501)]
    row = rows_of(study([replace(result("fedavg", 0, (1, 1, 1)), curve=curve)]), "default")[0]
    found = points(row, "macro_recall")
    assert len(found) < 30
    assert (found[0][0], found[-1][0]) == (1, 500)
    assert found[-1][1] == 0.5


def test_the_sentence_says_when_a_lead_may_be_chance():
    rows = [result("fedavg", s, (20, 10, n)) for s, n in enumerate((2, 8, 4))]
    rows += [result("other", s, (20, 10, n)) for s, n in enumerate((8, 2, 6))]
    text = sentence(rows_of(study(rows), "default"), "fedavg")
    assert text.startswith("other finds more of the minority than any other row: 0.267")
    assert text.endswith("the interval holds 0, so it may be chance.")


def test_the_sentence_heeds_corrected_tests():
    rows = rows_of(plain(), "default")
    assert "more than the control" in sentence(rows, "fedavg", {"la_post": "better"})
    assert "do not show it" not in sentence(rows, "fedavg", {"la_post": "better"})
    assert "do not show it" in sentence(rows, "fedavg", {"la_post": ""})


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([result("fedavg", 0, (20, 10, 9)), result("b", 0, (20, 10, 2))], "That is the control"),
        ([result("fedavg", 0, (20, 10, 2)), result("b", 0, (20, 10, 9))], "one seed says nothing of chance"),
        ([result("fedavg", 0, (20, 10, 9)), result("b", 0, (20, 10, 9))], "fedavg and b find the same share"),
        ([failed("fedavg", 0), result("b", 0, (20, 10, 9))], "The control, fedavg, has no complete result"),
        ([result("fedavg", 0, (20, 10, 9)), result("b", 1, (20, 10, 12))], "shares no seed with the control"),
        ([result("fedavg", 0, (20, 10, 9))], "fedavg finds 0.450 of the minority classes' test rows."),
        ([failed("fedavg", 0)], "No row has a minority recall"),
    ],
)
def test_sentences(results, words):
    assert words in sentence(rows_of(study(results), "default"), "fedavg")


def test_missing_runs_are_counted_over_settings():
    rows = [failed("b", 1, setting="easy"), failed("b", 1, "diverged", "hard"), failed("b", 2, setting="hard")]
    made = study(rows, [setting("easy"), setting("hard")])
    text = missing({name: rows_of(made, name) for name in made.settings})
    assert text == "Not compared where runs are missing: b: 1 diverged, 2 failed."
    assert missing({"easy": rows_of(plain(), "default")}) == ""


def test_differences_pair_by_seed():
    rows = [result("fedavg", s, (20, 10, 2 + s)) for s in (0, 1, 2)] + [result("b", s, (20, 10, 8)) for s in (1, 2, 3)]
    control, other = rows_of(study(rows), "default")
    gap = difference(other, control)
    assert (gap.value, gap.seeds) == (pytest.approx((0.25 + 0.2) / 2), 2)


def test_incomplete_rows_are_not_ranked_and_costs_have_no_best():
    lucky = [result("lucky", 0, (20, 20, 20)), failed("lucky", 1)]
    rows = rows_of(study([*plain().results, *lucky]), "default")
    assert [row.label for row in ranked(rows)] == ["la_post", "fedavg"]
    assert [row.label for row in best(rows, "minority_recall")] == ["la_post"]
    assert best(rows, "up_bytes") == []


def test_nothing_is_best_where_all_are_alike():
    rows = rows_of(study([result("fedavg", 0, (20, 10, 2)), result("b", 0, (20, 10, 2))]), "default")
    assert best(rows, "minority_recall") == []


def test_a_row_keeps_its_look_and_the_control_is_always_shown():
    rows = rows_of(
        study([result("fedavg", 0, (20, 10, 0)), *(result(f"r{i}", 0, (20, 10, i)) for i in range(10))]), "default"
    )
    entries = legend(rows)
    assert [entry.row.label for entry in entries] == ["fedavg", "r4", "r5", "r6", "r7", "r8", "r9"]
    assert len({(entry.colour, entry.marker) for entry in entries}) == 7
    few = foremost(entries, 2)
    assert [entry.row.label for entry in few] == ["fedavg", "r8", "r9"]
    assert all(entry in entries for entry in few)


def test_panels_are_images_with_their_words(tmp_path):
    folder = tmp_path / "run"
    (folder / "artifacts" / "panels").mkdir(parents=True)
    drawn = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    (folder / "artifacts" / "panels" / "a.svg").write_text(drawn)
    (folder / "artifacts" / "panels" / "a.json").write_text('{"title": "What was kept", "caption": "By <class>."}')
    (folder / "artifacts" / "panels" / "b_b.png").write_bytes(b"x" * (LARGEST + 1))
    (folder / "artifacts" / "panels" / "c.txt").write_text("not a picture")
    shared = [replace(result(label, 0, (20, 10, 2)), folder=folder) for label in ("fedavg", "la_post")]
    kept, large = panels(shared)  # one folder, two rows: shown once
    assert (kept.title, kept.caption, kept.run) == ("What was kept", "By <class>.", "fedavg, default, seed 0")
    assert base64.b64decode(kept.source.partition("base64,")[2]).decode() == drawn
    assert large.title == "b b"
    assert not large.source
    assert "150,001 bytes" in large.left_out

    from fedimb.report.html.page import page

    made = page(study(shared))
    assert "By &lt;class&gt;." in made
    assert "<script>alert" not in made
    assert f'<img src="{kept.source}" alt="What was kept">' in made


def test_panels_together_are_capped(tmp_path):
    for i in range(4):
        folder = tmp_path / str(i) / "artifacts" / "panels"
        folder.mkdir(parents=True)
        (folder / "p.png").write_bytes(b"x" * 100_000)
    found = panels([replace(result(f"r{i}", 0, (20, 10, 2)), folder=tmp_path / str(i)) for i in range(4)])
    assert [bool(one.source) for one in found] == [True, True, False, False]
    assert "fill the page's" in found[2].left_out


def test_two_pictures_share_no_id_and_text_stays_text():
    def drawn(name):
        made = figure(3, 2)
        axes = made.add_subplot()
        axes.plot([0, 1], [0, 1], marker="o")
        axes.set_xlabel("costs $5 & <more>")
        return svg(made, name, 'a "quoted" <alt>')

    first, second = drawn("one"), drawn("two")
    ids = [re.findall(r'id="([^"]*)"', text) for text in (first, second)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    assert first.replace("one-", "two-") == second
    assert "costs $5 &amp; &lt;more&gt;" in first
    assert 'aria-label="a &quot;quoted&quot; &lt;alt&gt;"' in first
    assert "<style" not in first
    assert "<metadata" not in first


def test_shortened_outlines_are_the_same_outlines():
    paths = '<path d="M 1.234 2 L -3.456 4 L 5 -6 z" style="fill: none"/><path d="M 0 1 C 1 2 3 4 5 6"/>'
    made = inline(f'<svg xmlns="s">{paths}</svg>', "p", "x")
    assert 'd="M1.2 2-3.5 4 5-6z"' in made
    assert 'd="M 0 1 C 1 2 3 4 5 6"' in made


@given(st.floats(0, 1))
def test_shades_rise_with_the_share(share):
    assert shade(share) == f"h{min(9, int(share * 10))}"


@given(st.integers(0, 300), st.integers(1, 30))
def test_columns_hold_every_place_once(n_classes, most):
    parts = columns(n_classes, most)
    assert [i for part in parts for i in part.tolist()] == list(range(n_classes))
    assert len(parts) == min(n_classes, most)


@given(st.floats(1e-3, 1e9))
def test_amounts_keep_three_figures_or_two_below_a_tenth(value):
    text = amount(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.051 if value < 0.1 else 0.0051)


@pytest.mark.parametrize("name", list(COLUMNS))
def test_every_column_has_words_for_nothing(name):
    assert shown(name, float("nan")) == "n/a"


def test_suspect_runs_are_marked_counted_and_explained():
    pytest.importorskip("jinja2")
    from fedimb.report.html.page import page

    fine = plain()
    assert "suspect" not in page(fine).partition("<body")[2]
    results = [replace(r, suspect="predicts one <class>") if r.seed == 1 else r for r in fine.results]
    text = page(replace(fine, results=tuple(results)))
    assert ", 2 suspect (marked" in text
    assert "is suspect: 1 of 3 runs (seed 1): predicts one &lt;class&gt;." in text
    (row, *_) = rows_of(replace(fine, results=tuple(results)), "default")
    assert row.suspect == "1 of 3 runs (seed 1): predicts one <class>"
