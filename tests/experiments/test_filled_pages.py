"""Pages that are filled in from CSVs say only what these bear out, and their free heads are the studies' own rows."""

import csv
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PAGES = {"fairfal": "claims", "fedssg": "images_claims", "ranking": "claims"}
LITERALS = {".01", ".1", ".5", ".8", "0.1"}
"""Decimals that are settings of the studies."""


def loaded(folder: str, name: str) -> ModuleType:
    """A study's script, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", EXPERIMENTS / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]  # else it is code of every run that another test starts in this process
    return module


def lines_of(folder: str, name: str) -> list[dict[str, str]]:
    with (EXPERIMENTS / folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("folder", "script"), PAGES.items())
def test_the_page_and_its_csvs_are_those_of_the_rows(folder, script, tmp_path):
    module = loaded(folder, script)
    page = (EXPERIMENTS / folder / "page.md").read_text(encoding="utf-8")
    bare = re.sub(r"\{[^{}]+\}", "", page)
    assert set(re.findall(r"(?<![\w.])[-+]?\d*\.\d+", bare)) <= LITERALS
    for path in (EXPERIMENTS / folder).glob("*.csv"):
        (tmp_path / path.name).symlink_to(path)
    for name in module.MADE:
        (tmp_path / name).unlink(missing_ok=True)
    module.publish(tmp_path)
    for name in (*module.MADE, "README.md"):
        assert (tmp_path / name).read_text() == (EXPERIMENTS / folder / name).read_text()


@pytest.mark.parametrize(("folder", "script"), PAGES.items())
def test_a_figure_that_is_not_in_the_csvs_fails(folder, script):
    figures = loaded(folder, script).Figures(EXPERIMENTS / folder)
    for words in ("macro cifar10/skewed nobody T", "macro;cifar10/skewed;nobody", "nothing of the kind"):
        with pytest.raises((KeyError, ValueError, TypeError)):
            figures(words)


@pytest.mark.parametrize("setting", ["skewed", "even"])
def test_the_heads_on_randoms_labels_are_the_studys_own_free_rows(setting):
    """What the script computes of the labels in the run folders is what the runs of ncm and lda found by messages."""
    heads = {
        (row["data_set"], row["head"], row["min_count"], row["seed"]): row
        for row in lines_of("fairfal", "heads.csv")
        if (row["setting"], row["rule"]) == (setting, "random")
    }
    seen = 0
    for row in lines_of("fairfal", f"{setting}_rows.csv"):
        head, _, count = row["label"].partition("@")
        if head in ("ncm", "lda"):
            other = heads[row["setting"], head, count or "1", row["seed"]]
            assert float(row["macro_recall"]) == pytest.approx(float(other["macro_recall"]), abs=1e-3)
            seen += 1
    assert seen == len(heads) == 40


def test_the_servers_rows_are_added_to_those_of_the_clients():
    heads = lines_of("fedssg", "heads.csv")
    rows = {(row["study"], row["setting"], row["seed"], row["rows"]): int(row["n"]) for row in heads}
    assert {(study, seed) for study, _, seed, _ in rows} == {(s, n) for s in ("images", "images_mild") for n in "01234"}
    for study, setting, seed, _ in rows:
        counts = [rows[study, setting, seed, part] for part in ("clients", "D_0", "clients and D_0")]
        assert counts[0] + counts[1] == counts[2]
        assert counts[1] == 30 * {"cifar10": 10, "pneumonia": 2}[setting]


@pytest.mark.parametrize("study", ["images", "images_mild"])
def test_the_heads_of_the_clients_rows_are_the_studys_own_free_rows(study):
    heads = {
        (row["setting"], row["head"], row["min_count"], row["seed"]): float(row["macro_recall"])
        for row in lines_of("fedssg", "heads.csv")
        if (row["study"], row["rows"]) == (study, "clients")
    }
    own = {
        (row["setting"], *row["label"].partition("@")[::2], row["seed"]): float(row["macro_recall"])
        for row in lines_of("fedssg", f"{study}_rows.csv")
        if row["label"].partition("@")[0] in ("ncm", "lda")
    }
    own = {(setting, head, count or "1", seed): found for (setting, head, count, seed), found in own.items()}
    assert own == pytest.approx(heads, abs=1e-3)
    assert len(own) == 40
