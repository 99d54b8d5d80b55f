"""Every figure on an experiment's page is its CSV's: pages are filled in, and a figure by itself is found."""

import importlib.util
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILLED = sorted(path.parent.name for path in EXPERIMENTS.glob("*/README.src.md"))
OTHERWISE = {"fairfal", "fedssg", "oneround", "ranking"}
"""Folders whose page a script of their own fills in, from page.md."""
WAITING = {"fairfal/former.md", "fedssg/former.md"}
"""Pages with figures typed by hand, by folder, or folder/file if it is another than README.md; to be emptied."""

_spec = importlib.util.spec_from_file_location("experiment_pages", EXPERIMENTS / "pages.py")
assert _spec is not None
assert _spec.loader is not None
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rows, two settings, two seeds; one run without a score. A second file without the column, and a table."""
    lines = [
        "setting,label,seed,recall,rounds",
        "a b,x,0,.5,4",
        "a b,x,1,.7,9",
        "a b,y,0,.25,9",
        "a b,y,1,.35,9",
        "c,x,0,-.0001,9",
        "c,y,0,,9",
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "other_rows.csv").write_text("label,precision\nx,.5\n")
    (tmp_path / "table.txt").write_text("own head 0.655, rows 25,000\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("mean rows.csv recall setting='a b' label=x", ".600"),
        ("mean rows.csv recall setting='a b' label=x :%", "60 %"),
        ("mean rows.csv recall setting='a b' label=x :1%", "60.0 %"),
        ("mean rows.csv recall setting='a b' label=x :+2±", "+.60 ± 1.27"),
        ("half rows.csv recall setting='a b' label=x :2", "1.27"),  # 12.706 x .1
        ("most rows.csv recall recall!= :2", ".70"),
        ("least rows.csv recall setting=c label=x :3", ".000"),
        ("least rows.csv recall setting=c label=x :+3", "+.000"),
        ("gap rows.csv recall label=x setting='a b' -- label=y setting='a b' :+2", "+.30"),
        ("gap rows.csv recall label=x setting='a b' -- label=y setting='a b' :2±", ".30 ± .64"),  # .25, .35
        ("wins rows.csv recall label=x setting='a b' -- label=y setting='a b'", "2"),
        ("count rows.csv label=x setting!=c", "2"),
        ("count rows.csv setting='a b|c'", "6"),
        ("count rows.csv setting='a b' recall=", "0"),
        ("count rows.csv recall=", "1"),
        ("count rows.csv rounds<9", "1"),
        ("count rows.csv recall!= recall<seed", "3"),
        ("count *rows.csv label=x", "4"),
        ("count *rows.csv label=x seed=0", "2"),
        ("only rows.csv recall setting=c label=x :4", "-.0001"),
        ("only rows.csv label setting=c label=x :s", "x"),
        ("mean rows.csv recall label=x setting='a b' - mean rows.csv recall label=y setting='a b' :2", ".30"),
        ("mean rows.csv recall label=x setting='a b' / 3 * 1000 :0", "200"),
        ("3 / count rows.csv label=x :%", "100 %"),
        ("match table.txt 'head ([.0-9]+)' :2", ".66"),
        ("match table.txt 'rows ([0-9,]+)' :s", "25,000"),
        ("match table.txt 'rows ([0-9,]+)' / 1000 :0", "25"),
        ("check count rows.csv label=x > count rows.csv label=x setting=c", ""),
        ("verdict count rows.csv label=x <= 3", "pass"),
        ("verdict count rows.csv label=x < 3", "**miss**"),
        ("= .1", ".1"),
    ],
)
def test_a_figure_is_the_files(folder: Path, words: str, text: str) -> None:
    assert pages.fill(f"so {{{words}}}.", folder) == f"so {text}."


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("mean rows.csv recall label=z", "no label is 'z'"),
        ("count rows.csv label!=z", "no label is 'z'"),
        ("mean rows.csv recall lable=x", "no column 'lable'"),
        ("mean rows.csv precision", "no column 'precision'"),
        ("mean rows.csv recall setting=c", "1 of 2 lines have no recall"),
        ("mean rows.csv recall setting='a b' label=x rounds<3", "no line is left"),
        ("half rows.csv recall setting=c label=x", "one number has no interval"),
        ("mean other.csv recall", "No such file"),
        ("only rows.csv recall label=x", "3 lines are left"),
        ("gap rows.csv recall label=x -- label=y setting='a b'", "two lines for one seed|have no partner"),
        ("gap rows.csv recall label=x setting='a b' -- label=x setting=c", "have no partner"),
        ("half rows.csv recall setting='a b'", "two lines of one seed"),
        ("mean rows.csv recall recall!= label=x :3±", "two lines of one seed"),
        ("median rows.csv recall setting='a b' label=x :3±", "for mean and gap"),
        ("best rows.csv recall", "recall"),
        ("mean rows.csv recall label=x :q", "says nothing of printing"),
        ("match table.txt '([0-9]+)'", "found 4 times"),
        ("check count rows.csv label=x < 3", "3 < 3 is not so"),
        ("table rows.csv recall label setting", "1 of 1 lines have no recall|no interval"),
    ],
)
def test_a_figure_that_no_file_has_is_named(folder: Path, words: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        pages.fill(f"{{{words}}}", folder)
    assert words in str(caught.value)


def test_a_table_has_every_row_and_setting_of_the_file(folder: Path) -> None:
    assert pages.fill("{table rows.csv recall label setting setting='a b' :2}\n", folder).splitlines() == [
        "| label | a b |",
        "| --- | --- |",
        "| x | .60 ± 1.27 |",
        "| y | .30 ± .64 |",
    ]
    lines = pages.fill("{table rows.csv rounds label setting label=x setting='a b' :0}", folder)
    assert lines.endswith("| x | 6 ± 32 |")


def test_lines_are_repeated_for_a_files_and_for_given_values(folder: Path) -> None:
    each = "{each rows.csv label setting='a b'}\n"
    each += "| $label | {mean rows.csv recall setting='a b' label=$label :2} |\n{end}\n"
    assert pages.fill(each, folder) == "| x | .60 |\n| y | .30 |\n"
    each = "{each label=y|x name='why|the x'}\n$name {count rows.csv label=$label}\n{end}\n"
    assert pages.fill(each, folder) == "why 3\nthe x 3\n"
    with pytest.raises(ValueError, match="lable"):
        pages.fill("{each rows.csv label}\n$lable\n{end}\n", folder)
    with pytest.raises(ValueError, match="each label"):
        pages.fill("{each label=x|y name=x}\n$name\n{end}\n", folder)


def test_code_is_left_as_it_is(folder: Path) -> None:
    page = "`{name: pad_crop}` {= .5}\n\n    {mean of}\n    x\n\n```\n{mean}\n```\n"
    assert pages.fill(page, folder) == page.replace("{= .5}", ".5")


def test_a_figure_typed_by_hand_is_found() -> None:
    page = "Recall .61 at `alpha=.1`, 44 % of {= .5} ([rows](rows0.5.csv)), version 1.2.3; {mean rows.csv recall}\n\n"
    page += "    fedimb run local.lr=.1\n"
    assert pages.bare(page) == [".61", "44 %"]
    page = "It is .52. Of these, 2.5x as many (-.141); 7.3, of 3\n% and 3 per cent.\n- a list\n    with .9 in it"
    assert pages.bare(page) == [".52", "2.5", "-.141", "7.3", "3\n%", "3 per cent", ".9"]


@pytest.mark.parametrize("name", FILLED)
def test_a_page_says_what_its_files_say(name: str) -> None:
    source = (EXPERIMENTS / name / "README.src.md").read_text(encoding="utf-8")
    assert pages.bare(source) == []
    filled = pages.fill(source, EXPERIMENTS / name)
    assert filled == (EXPERIMENTS / name / "README.md").read_text(encoding="utf-8"), "run python experiments/pages.py"
    assert "{" not in pages.CODE.sub("", filled), "a figure that is not closed on its line"


def test_every_page_with_figures_is_filled_in_or_named() -> None:
    with_figures = set()
    for path in EXPERIMENTS.glob("*/*.md"):
        if path.name not in ("README.src.md", "page.md") and pages.bare(path.read_text(encoding="utf-8")):
            with_figures.add(path.parent.name if path.name == "README.md" else f"{path.parent.name}/{path.name}")
    assert with_figures - set(FILLED) - OTHERWISE == WAITING
