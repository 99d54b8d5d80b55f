"""The study of the mean correction: its heads are fedimb's, and its page says only what its CSVs bear out."""

import csv
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from fedimb.discriminant import heads
from fedimb.discriminant.estimates import means_of, within_of
from fedimb.discriminant.leave_one_out import GRID, Fitted, chosen, held_out
from fedimb.study.pages import fill

FOLDER = Path(__file__).parents[2] / "experiments" / "oneround"
REGISTERED = yaml.safe_load((FOLDER / "registered.yaml").read_text(encoding="utf-8"))
LITERALS = {".01", ".05", ".5", "0.5", "1.5"}
"""Decimals of the registration, which the page may name."""


def loaded(name: str) -> ModuleType:
    """A script of the study, under a name of its own: other studies have claims.py too."""
    spec = importlib.util.spec_from_file_location(f"oneround_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]  # else it is code of every run that another test starts in this process
    return module


ARMS, CLAIMS = loaded("arms"), loaded("claims")


def lines_of(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), (40, 12, 3, 1))
    return rng.normal(size=(len(y), 6)) * np.linspace(0.3, 2, 6) + rng.normal(size=(4, 6))[y], y


@pytest.fixture(scope="module")
def figures():
    return CLAIMS.Figures(FOLDER)


def arm(name: str):
    made = ARMS.arms(REGISTERED["arms"]["c"], REGISTERED["controls"]["tau"])
    return next(one for one in made if one.name == name)


@pytest.mark.parametrize(("name", "correct"), [("c=1", True), ("c=0", False), ("equal", False)])
def test_the_arms_are_fedimbs_head_with_and_without_its_correction(sample, name, correct):
    x, y = sample
    statistics = ARMS.sums_of(x, y, 4)
    study = ARMS.Study(statistics, x, y)
    found = study.choose(arm(name))
    held, ids = statistics.in_order()
    fitted = Fitted(held.counts, means_of(held), within_of(held), np.zeros(4), correct)
    place = np.argsort(ids)
    theirs = chosen(*held_out(fitted, x, place[y], GRID, (1.0,)).values(), GRID, (1.0,))
    assert theirs is not None
    assert found.shrinkage == theirs.shrinkage
    assert found.log_loss == pytest.approx(theirs.log_loss)
    head = heads.lda(held, found.shrinkage, np.zeros(4), correct).spread(ids, 4)
    mine, other = study.scores(arm(name), found.shrinkage, x), head(x)
    np.testing.assert_allclose(mine - mine[:, :1], other - other[:, :1], atol=1e-9)


@pytest.mark.parametrize("shrinkage", [0.05, 0.5])
def test_abcrlda_is_one_times_the_correction_on_two_classes(sample, shrinkage):
    """The package's formula, with equal costs and a gamma that stands for the same shrinkage."""
    x, y = sample
    x, y = x[y < 2], y[y < 2]
    statistics = ARMS.sums_of(x, y, 2)
    within = within_of(statistics)
    gamma = ARMS.gamma_of(within, shrinkage)
    made = ARMS.abcrlda(statistics, gamma, within)
    head = heads.lda(statistics, shrinkage, np.zeros(2), True, within)
    factor = shrinkage * within.values.mean()  # (1 - a) S + a (tr S / d) I is this multiple of I + gamma S
    np.testing.assert_allclose(made.weight / factor, head.weight[0] - head.weight[1], rtol=1e-9)
    assert made.bias / factor == pytest.approx(head.bias[0] - head.bias[1], rel=1e-9)
    assert 0 < made.risk < 0.5


def test_a_term_that_is_equal_for_all_classes_changes_nothing():
    rows = {(*(row[k] for k in ("set", "features", "tail", "seed")), row["arm"]): row for row in lines_of("rows.csv")}
    pairs = [(row, rows[(*key[:4], "c=0")]) for key, row in rows.items() if key[4] == "equal"]
    assert len(pairs) > 100
    for one, other in pairs:
        assert one["macro_recall"] == other["macro_recall"]
        assert one["shrinkage"] == other["shrinkage"]


def test_every_cell_was_registered_and_has_all_its_seeds():
    cells = [row for row in lines_of("cells.csv") if row["made"] == "yes"]
    named = {name for group in REGISTERED["sets"].values() for name in group} | set(REGISTERED["seen"])
    assert {row["set"] for row in cells} <= named
    assert {row["features"] for row in cells} <= REGISTERED["features"].keys()
    seeds: dict[tuple[str, ...], list[int]] = {}
    for row in lines_of("cells.csv"):
        seeds.setdefault((row["set"], row["features"], row["tail"]), []).append(int(row["seed"]))
    assert all(sorted(found) == REGISTERED["seeds"] for found in seeds.values())
    assert not (FOLDER / "rows.csv").read_text(encoding="utf-8").count("brain")
    assert len(REGISTERED["contrasts"]) <= 6


def test_secure_sums_were_the_open_ones_wherever_it_was_looked_at():
    looked = [row["sums_equal"] for row in lines_of("cells.csv") if row.get("sums_equal")]
    assert looked
    assert set(looked) == {"True"}


def test_the_page_quotes_only_figures_of_the_csvs(figures):
    page = (FOLDER / "page.md").read_text(encoding="utf-8")
    bare = re.sub(r"\{[^{}]+\}", "", page)
    assert set(re.findall(r"(?<![\w.])-?\d*\.\d+", bare)) <= LITERALS
    assert fill(page, figures) == (FOLDER / "README.md").read_text(encoding="utf-8")


def test_a_figure_that_is_not_in_the_csvs_fails(figures):
    with pytest.raises((KeyError, ValueError)):
        fill("{effect macro_recall c=1 c=7}", figures)
    with pytest.raises((KeyError, ValueError)):
        fill("{gain macro_recall c=1 c=0}", figures)


@pytest.mark.parametrize("name", ["claims", "goes", "costs", "pairs", "beside"])
def test_the_computed_csvs_are_those_of_the_rows(figures, tmp_path, name):
    files = {"goes": "goes_with", "beside": "bars_compared"}
    CLAIMS.write(tmp_path / "made.csv", getattr(figures, name))
    assert (tmp_path / "made.csv").read_text() == (FOLDER / f"{files.get(name, name)}.csv").read_text()


def test_the_verdict_is_that_of_the_registration():
    line = {"score": "macro_recall", "low": 0.01, "high": 0.03, "p_equal": 0.9}
    assert CLAIMS.verdict(line, 0.01) == "better"
    assert CLAIMS.verdict({**line, "score": "log_loss"}, 0.01) == "worse"
    assert CLAIMS.verdict(line, 0.2) == "undecided"
    assert CLAIMS.verdict({**line, "p_equal": 0.01}, 0.2) == "equal"
    assert CLAIMS.verdict({**line, "low": -0.03, "high": -0.01}, 0.01) == "worse"
