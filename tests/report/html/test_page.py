"""The page as a whole: what it says, that it stands alone, and that it stays small."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from fedimb.errors import FedimbError
from fedimb.evaluation.intervals import t_interval
from fedimb.report.html.page import page
from fedimb.study.results import COLUMNS, LOWER_IS_BETTER, Result, StudyResults

from .reading import Page, outside
from .studies import HOSTILE, failed, plain, result, setting, study


@pytest.fixture(scope="module")
def text():
    return page(plain())


@pytest.fixture(scope="module")
def read(text):
    return Page(text)


def test_it_needs_nothing_from_outside(text):
    assert outside(text) == []
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_ids_are_unique_and_links_lead_somewhere(read, text):
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) > 5
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


def test_every_picture_says_what_it_shows(read):
    pictures = read.of("svg")
    assert len(pictures) == 6  # recall, holders, two costs (no labels were counted), two curves
    assert all(len(one["aria-label"]) > 20 and one["role"] == "img" for one in pictures)
    assert all(one.get("alt") for one in read.of("img"))


def test_the_same_study_gives_the_same_page(text):
    assert page(plain()) == text


def test_cells_hold_mean_half_width_and_cost(read):
    rows = read.rows("row", "runs", "minority recall")
    mean, _, high = t_interval([10 / 20, 11 / 20, 12 / 20])
    assert rows["2la_post"][:2] == ["3", f"{mean:.3f} ± {high - mean:.3f}"]
    costs = read.rows("row", "runs", "MB up")
    assert costs["1fedavg control"][:3] == ["3", "2.00", "3.00"]  # the same in every seed: no half-width


def test_recall_goes_from_head_to_tail(read):
    rows = read.rows("row", "cat", "dog", "fox")
    assert rows["1 fedavg"] == ["100", "75", "15"]
    assert rows["training rows"] == ["40", "12", "2"]


def test_who_holds_what_with_exposure(read):
    rows = read.rows("client", "cat", "dog", "fox")
    assert rows["2"] == ["", "2", ""]
    assert rows["holders"] == ["2", "3", "2"]
    assert rows["largest holder"] == ["75%", "50%", "50%"]
    assert rows["effective holders"] == [f"{40**2 / 1000:.1f}", f"{144 / 56:.1f}", "2.0"]


def test_confusion_is_summed_over_seeds_in_per_cent_of_the_true_class(read, text):
    rows = read.rows("true \\ predicted", "cat", "dog", "fox")
    assert rows["fox"] == ["85", "", "15"]  # 9 of 60 over three seeds
    assert 'title="9">15' in text


def test_headline_names_the_best_row_and_its_paired_lead(read):
    assert "la_post finds more of the minority than any other row: 0.550 ± 0.124 (mean of 3 seeds)." in read.text
    assert "That is 0.400 more than the control, fedavg" in read.text


def test_hostile_names_stay_text():
    names = (HOSTILE, "b&b", "c\"'d")
    label = "<img src=x onerror=alert(2)>"
    results = [result("fedavg", 0, (20, 15, 2)), result(label, 0, (20, 15, 9)), failed(label, 1, error=HOSTILE)]
    made = page(study(results, [setting(names=names)], command=HOSTILE, facts={HOSTILE: HOSTILE}))
    seen = Page(made)
    assert len(seen.of("script")) == 1
    assert not seen.of("img")
    assert HOSTILE in seen.text
    assert outside(made) == []


def test_runs_without_a_result_are_counted_and_never_best():
    good = [result("fedavg", s, (20, 15, 2)) for s in range(3)]
    lucky = [result("lucky", 0, (20, 20, 20)), failed("lucky", 1), failed("lucky", 2, "diverged")]
    made = page(study([*good, *lucky, *[result("third", s, (20, 15, 4)) for s in range(3)]]))
    seen = Page(made)
    assert seen.rows("row", "runs")["2lucky"][0] == "1/3 1 failed (seed 1), 1 diverged (seed 2)"
    best = re.findall(r'<td class="best"[^>]*>([0-9.]+)', made)
    assert "0.200" in best
    assert "1.000" not in best
    assert "third finds more of the minority than any other row" in seen.text
    assert "lucky: 1 failed (seed 1), 1 diverged (seed 2)" in seen.text
    assert "RunFailed: client 3 left" in seen.text
    assert "7 of 9 runs finished" in seen.text


def test_nothing_finished_is_an_error():
    with pytest.raises(FedimbError, match="no run of trial finished"):
        page(study([failed("fedavg", 0)]))


def test_a_score_that_is_undefined_says_so():
    rows = [result("fedavg", s, (20, 15, 2), scores={"g_mean": float("nan") if s else 0.5}) for s in range(2)]
    assert (
        Page(page(study(rows))).rows("row", "runs", "minority recall", "macro recall", "G-mean")["1fedavg control"][3]
        == "n/a"
    )


def test_a_class_without_test_rows_is_not_zero():
    one = result("fedavg", 0, (20, 15, 2))
    matrix = one.matrix.copy()
    matrix[2] = 0
    seen = Page(page(study([replace(one, matrix=matrix, recall=(1.0, 0.75, float("nan")))])))
    assert seen.rows("row", "cat", "dog", "fox")["1 fedavg"] == ["100", "75", "n/a"]


def test_several_settings_have_a_section_each_and_a_table_across():
    settings = [setting("easy"), setting("hard")]
    rows = [
        result(label, s, (20, 15, n), setting=where)
        for where in ("easy", "hard")
        for label, n in (("fedavg", 2), ("other", 12 if where == "easy" else 1))
        for s in range(2)
    ]
    made = page(study(rows, settings))
    seen = Page(made)
    across = seen.rows("row", "easy", "hard")
    assert across["1fedavg control"] == ["0.100 ± 0.000", "0.100 ± 0.000"]
    assert across["2other"] == ["0.600 ± 0.000", "0.050 ± 0.000"]
    assert len(seen.of("details")) >= 2
    assert made.count('<div class="three">') == 2
    assert "In pictures: easy" in seen.text
    assert "no other row finds more than fedavg" in seen.text
    assert outside(made) == []
    ids = [a["id"] for _, a in seen.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_a_setting_in_which_nothing_finished_is_still_told():
    empty = replace(setting("gone"), class_names=(), minority=(), train_counts=np.zeros(0, np.int64), counts=None)
    rows = [result("fedavg", 0, (20, 15, 2)), failed("fedavg", 0, setting="gone", error="no such data")]
    seen = Page(page(study(rows, [setting(), empty])))
    assert "no such data" in seen.text
    assert "No row has a minority recall from all of its runs." in seen.text


def test_several_labels_per_row_show_found_missed_and_false_alarms():
    matrix = np.array([[[30, 5], [2, 8]], [[40, 0], [4, 1]], [[45, 0], [0, 0]]])
    one = replace(result("fedavg", 0, (20, 15, 2)), matrix=matrix, recall=(0.8, 0.2, float("nan")))
    rows = Page(page(study([one]))).rows("class", "found, %", "missed", "false alarms")
    assert rows == {"cat": ["80", "2", "5"], "dog": ["20", "4", "0"], "fox": ["n/a", "0", "0"]}


def large(rows=14, seeds=12, settings=8, n_classes=10):
    rng = np.random.default_rng(0)
    train = np.geomspace(500, 10, n_classes).astype(int)
    found, results = {}, []
    for s in range(settings):
        counts = np.stack([rng.multinomial(n, rng.dirichlet(np.full(10, 0.3))) for n in train], 1)
        name = f"setting {s}"
        found[name] = setting(name, tuple(f"class {c}" for c in range(n_classes)), counts, (7, 8, 9))
        for i in range(rows):
            for seed in range(seeds):
                hits = rng.binomial(100, np.linspace(0.9, 0.2 + 0.04 * i, n_classes))
                one = result(f"row+with+a+name+{i}", seed, hits, (7, 8, 9), name, 100, sha=f"{seed:064d}")
                scores = {k: float(rng.uniform(0.1, 0.9)) for k in COLUMNS if k not in one.scores}
                curve = [(at, {k: v + at / 1e3 for k, v in one.curve[0][1].items()}) for at in range(100)]
                results.append(replace(one, scores={**one.scores, **scores}, curve=curve))
    labels = tuple(f"row+with+a+name+{i}" for i in range(rows))
    return StudyResults("large", "", found, labels, labels[0], tuple(results))


@pytest.mark.slow
def test_a_large_study_stays_below_a_megabyte():
    made = page(large())
    assert len(made.encode()) <= 1_000_000
    assert outside(made) == []


def test_large_matrices_become_pictures():
    seen = Page(page(large(rows=2, seeds=2, settings=1, n_classes=40)))
    images = seen.of("img")
    assert len(images) == 3  # who holds what, two confusion matrices
    assert all(one["src"].startswith("data:image/png;base64,") and one["alt"] for one in images)
    assert "1-2" in seen.tables[[t[0][0] for t in seen.tables].index("row") + 2][0] or "1-2" in seen.text


def test_lower_is_better_where_it_is():
    rows = [result("fedavg", 0, (20, 15, 2), scores={"ece": 0.3}), result("b", 0, (20, 15, 2), scores={"ece": 0.1})]
    made = page(study(rows))
    assert "ece" in LOWER_IS_BETTER
    assert re.search(r'<td class="best">0\.100', made)
    assert not re.search(r'<td class="best">0\.300', made)


def test_error_of_a_run_is_kept_beside_its_hash():
    rows = [result("fedavg", 0, (20, 15, 2), sha="c" * 64), Result("default", "fedavg", 1, "failed", error="E42")]
    text = Page(page(study(rows))).text
    assert "c" * 64 in text
    assert "E42" in text


def test_it_opens_with_three_pictures(text, read):
    assert text.count('<div class="three">') == 1
    before = text.partition("Setting: default")[0]
    assert re.findall(r"<figure><h4>(.*?)</h4>", before) == ["How much of each class is found",
        "Who holds the rare classes", "What is found against what it sent"]  # fmt: skip
    assert "fox: 2 of 3 clients have any; the largest holder has 50% of its 2 rows." in read.text
    assert "Hollow: free rows (2 la_ post)" in read.text
