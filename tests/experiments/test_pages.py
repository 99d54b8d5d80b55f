"""Every figure on an experiment's page is its CSV's: pages are filled in, and a figure by itself is found."""

import importlib.util
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILLED = sorted(path.parent.name for path in EXPERIMENTS.glob("*/README.src.md"))
OTHERWISE = {"oneround"}
"""Pages that a script of their own fills in."""
WAITING = {"baselines", "cifar10", "demo", "encoders", "engine", "fairfal", "fedssg", "heart", "monitor", "privacy"}
WAITING |= {"literature", "robust", "scope", "yardstick"}
"""Pages with figures typed by hand; to be emptied."""

_spec = importlib.util.spec_from_file_location("experiment_pages", EXPERIMENTS / "pages.py")
assert _spec is not None
assert _spec.loader is not None
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rows, two settings, two seeds; one run without a score."""
    lines = [
        "setting,label,seed,recall",
        "a b,x,0,.5",
        "a b,x,1,.7",
        "a b,y,0,.25",
        "a b,y,1,.35",
        "c,x,0,-.0001",
        "c,y,0,",
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("mean rows.csv recall setting='a b' label=x", ".600"),
        ("mean rows.csv recall setting='a b' label=x :%", "60 %"),
        ("half rows.csv recall setting='a b' label=x :2", "1.27"),  # 12.706 x .1
        ("most rows.csv recall :2", ".70"),
        ("least rows.csv recall setting=c :3", ".000"),
        ("gap rows.csv recall label=x setting='a b' -- label=y setting='a b' :+2", "+.30"),
        ("count rows.csv label=x setting!=c", "2"),
        ("count rows.csv setting='a b|c'", "6"),
        ("only rows.csv recall setting=c label=x :4", "-.0001"),
        ("only rows.csv label setting=c label=x :s", "x"),
        ("= .1", ".1"),
    ],
)
def test_a_figure_is_the_files(folder: Path, words: str, text: str) -> None:
    assert pages.fill(f"so {{{words}}}.", folder) == f"so {text}."


@pytest.mark.parametrize(
    "words",
    [
        "mean rows.csv recall label=z",
        "mean rows.csv recall lable=x",
        "mean rows.csv precision",
        "mean rows.csv recall setting=c label=y",
        "mean other.csv recall",
        "only rows.csv recall label=x",
        "gap rows.csv recall label=x -- label=y setting=c",
        "best rows.csv recall",
    ],
)
def test_a_figure_that_no_file_has_is_named(folder: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words.split()[0]):
        pages.fill(f"{{{words}}}", folder)


def test_a_figure_typed_by_hand_is_found() -> None:
    page = "Recall .61 at `alpha=.1`, 44 % of {= .5} ([rows](rows0.5.csv)), version 1.2.3; {mean rows.csv recall}\n\n"
    page += "    fedimb run local.lr=.1\n"
    assert pages.bare(page) == [".61", "44 %"]


@pytest.mark.parametrize("name", FILLED)
def test_a_page_says_what_its_files_say(name: str) -> None:
    source = (EXPERIMENTS / name / "README.src.md").read_text(encoding="utf-8")
    assert pages.bare(source) == []
    filled = pages.fill(source, EXPERIMENTS / name)
    assert filled == (EXPERIMENTS / name / "README.md").read_text(encoding="utf-8"), "run python experiments/pages.py"


def test_every_page_with_figures_is_filled_in_or_named() -> None:
    with_figures = {
        path.parent.name for path in EXPERIMENTS.glob("*/README.md") if pages.bare(path.read_text(encoding="utf-8"))
    }
    assert with_figures - set(FILLED) - OTHERWISE == WAITING
