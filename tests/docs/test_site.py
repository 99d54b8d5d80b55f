"""The site: every page is in the nav, every setting has a meaning, results are the CSVs, questions are answered.

Building it takes minutes: `make docs`, and the slow test at the end. What is here needs none of its packages.
"""

import csv
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from website import check, hooks, links, results, settings  # noqa: E402

DOCS = ROOT / "docs"
QUESTIONS = {
    "How do I use my CSV?": "data import",
    "How do I use my folder of images?": "image_folder",
    "How do I use my model?": "_target_",
    "How do I use my loss?": "RowLoss",
    "What does this number mean?": "minority_recall",
    "Is it significant?": "Wilcoxon",
    "Why was it refused?": "list combinations",
    "How do I resume?": "--resume",
    "How do I deploy?": "deploy init",
    "How do I cite it?": "CITATION.cff",
}
"""A newcomer's ten questions, and words that an answer has."""


class Loader(yaml.SafeLoader):
    """mkdocs.yml names a function of the highlighter; what it is does not matter here."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def config() -> dict[str, object]:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


def leaves(nav: object) -> Iterator[str]:
    """Addresses in the nav, in order."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for entry in nav.values():
            yield from leaves(entry)
    elif isinstance(nav, list):
        for entry in nav:
            yield from leaves(entry)


def test_every_page_is_in_the_nav_once() -> None:
    named = list(leaves(config()["nav"]))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(set(named))
    assert pages <= set(named)
    made = {"results.md", "readme.md", "contributing.md", "changelog.md", "security.md"}
    assert {name for name in named if not name.endswith("/")} - pages == made
    folders = {name for name in named if name.endswith("/")}
    assert folders == {f"reference/{part}/" for part in ("settings", "cli", "parts", "api")} | {
        "experiments/",
        "notebooks/",
    }


def test_the_site_has_one_search_no_fonts_and_no_repository_to_ask() -> None:
    found = config()
    theme = found["theme"]
    plugins = found["plugins"]
    assert isinstance(theme, dict)
    assert isinstance(plugins, list)
    assert theme["font"] is False
    assert plugins.count("search") == 1
    assert "repo_url" not in found
    assert found["strict"] is True


def test_every_setting_has_a_meaning() -> None:
    assert settings.undocumented() == []
    assert sum(len(file.settings) for file in settings.files()) > 800


def test_a_setting_is_read_with_its_default_and_comment(tmp_path: Path) -> None:
    file = tmp_path / "loss" / "some.yaml"
    file.parent.mkdir()
    file.write_text(
        "# What it does.\nname: some\n# Above.\na: [1, 2]\nb: '#x'   # beside\nc: 1\n# d: cosine   # or not\n"
    )
    found = settings.read(file)
    assert found.about == "What it does."
    assert [(one.key, one.value, one.comment, one.optional) for one in found.settings] == [
        ("name", "some", "", False),
        ("a", "[1, 2]", "Above.", False),
        ("b", "'#x'", "beside", False),
        ("c", "1", "", False),
        ("d", "cosine", "or not", True),
    ]


def test_a_comment_of_one_part_is_not_taken_for_another_part() -> None:
    """`tau` of fedadam and of a calibration are two things; the keys of data sets are the same in all of them."""
    assert settings.shared("aggregator") == {}
    assert "rows of the largest class" in settings.shared("data")["n_max"]


def test_links_of_a_page_lead_to_the_same_thing_on_the_site() -> None:
    text = "[data.md](data.md) [a](../README.md#install) [b](../experiments/demo/rows.csv) `[c](x.md)` [C][K]"
    assert links.rewritten(text, "docs/compare.md") == (
        "[Data: from files to clients](data.md) [a](readme.md#install) [b](files/experiments/demo/rows.csv) "
        "`[c](x.md)` [C]\\[K]"
    )
    assert links.rewritten("[e](https://x.y)", "docs/compare.md") == "[e](https://x.y)"
    assert links.rewritten("[x](../heart)", "experiments/demo/README.md") == "[x](../heart/index.md)"
    with pytest.raises(ValueError, match="leads nowhere"):
        links.rewritten("[x](gone.md)", "docs/compare.md")
    with pytest.raises(ValueError, match="leads to a folder without a README"):
        links.rewritten("[x](notebooks)", "docs/compare.md")


def test_every_link_of_a_page_has_an_address() -> None:
    pages = [*(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")), *hooks.adopted()]
    assert len(pages) > 60
    assert links.linked((page, (ROOT / page).read_text(encoding="utf-8")) for page in pages)


def test_the_results_are_those_of_the_csvs() -> None:
    (text,) = results.pages().values()
    with (ROOT / "experiments" / results.BENCH).open(newline="") as opened:
        lines = list(csv.DictReader(opened))
    seconds = {
        engine: statistics.median(float(line["round_s"]) for line in lines if (line["case"], line["engine"]) == key)
        for engine in ("inline", "stock")
        for key in [("digits", engine)]
    }
    row = next(line for line in text.splitlines() if line.startswith("| digits | inline |"))
    assert row.split("|")[5].strip() == f"{seconds['inline'] / seconds['stock']:.2f}"
    registered = text.split("## Registered contrasts")[1].split("## Exploratory")[0]
    with (ROOT / "experiments/baselines/sets_contrasts.csv").open(newline="") as opened:
        contrasts = list(csv.DictReader(opened))
    assert contrasts
    for line in contrasts:
        assert f"{float(line['difference']):+.3f}" in registered
    assert "undecided" in registered


def test_each_table_of_results_names_its_csv_and_commands() -> None:
    (text,) = results.pages().values()
    sections = re.split(r"^##+ ", text, flags=re.MULTILINE)
    tables = [section for section in sections if "| --- |" in section]
    assert len(tables) > 6
    for section in tables:
        found = re.findall(r"\(files/(experiments/\S+?\.csv)\)", section)
        before = text[: text.index(section)]
        assert found or re.search(r"From \[[^\]]+\]\(files/experiments/\S+\.csv\)", before), section[:80]
        assert all((ROOT / name).is_file() for name in found)
    for folder in {name.partition("/")[0] for name in results.used()}:
        assert re.search(r"^(fedimb|python|.*fedimb bench)", results.commands(folder), re.MULTILINE), folder
        assert f"\n### {folder}\n" in text


def test_a_leaderboard_is_taken_in_when_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "HERE", tmp_path)
    (tmp_path / "ranking").mkdir()
    cells = {"row": "uniform+la_post", "kind": "free", "macro_recall": "0.81234", "minority_recall": "0.5"}
    cells |= {"difference": "-0.0251", "low": "-0.06", "high": "0.01", "beats": "1", "level": "2", "below": "3"}
    cells |= {"undecided": "7", "up_bytes": "30640", "client_seconds": "0", "prior": "clear_sum", "is_bar": "4"}
    lines = [",".join(cells), ",".join(cells.values())]
    (tmp_path / "ranking" / "leaderboard.csv").write_text("\n".join(lines) + "\n")
    results.lines_of.cache_clear()
    try:
        said = results.leaderboard().splitlines()[-1].replace(results.NO_BREAK, " ")
        assert "| free | 0.812 | 0.500 | -0.025 | -0.060 to +0.010 | 1 / 2 / 3 / 7 | 0.03 | none |" in said
    finally:
        results.lines_of.cache_clear()


def reached(page: Path) -> dict[Path, str]:
    """Pages that a page links to, with their text."""
    found = {}
    for target in links.targets(page.read_text(encoding="utf-8")):
        path = page.parent / target.partition("#")[0]
        if target[0] != "#" and path.suffix in (".md", ".cff"):
            found[path.resolve()] = path.read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_newcomers_question_is_answered_within_two_clicks(question: str) -> None:
    first = DOCS / "index.md"
    (row,) = (line for line in first.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {question} |"))
    clicked = [(first.parent / target.partition("#")[0]).resolve() for target in links.targets(row)]
    assert clicked
    texts = [path.read_text(encoding="utf-8") for path in clicked]
    second = [text for path in clicked for text in reached(path).values()]
    assert any(QUESTIONS[question] in text for text in (*texts, *second))


def test_requests_to_elsewhere_and_dead_links_are_found(tmp_path: Path) -> None:
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'">'
    (tmp_path / "a.html").write_text(f'{policy}<h1 id="x"></h1><a href="b.html#y">b</a><a href="https://z.org">z</a>')
    (tmp_path / "b.html").write_text(
        f'{policy}<script src="//cdn.org/x.js"></script><img src="https://a.b/c.png"><style>@import "http://f.g";</style>'
        '<a href="a.html#x">a</a><a href="gone.html">c</a><link rel="canonical" href="https://here">'
    )
    (tmp_path / "c.css").write_text(
        "p { background: url(https://d.e/f.svg) } q { background: url(data:image/png;base64,a) }"
    )
    assert check.faults(tmp_path) == [
        "a.html: the link b.html#y has no such anchor",
        "b.html: asks //cdn.org/x.js",
        "b.html: asks https://a.b/c.png",
        "b.html: asks http://f.g",
        "b.html: the link gone.html leads nowhere",
        "c.css: asks https://d.e/f.svg",
    ]
    (tmp_path / "d.html").write_text("<p>nothing</p>")
    assert "d.html: has no Content-Security-Policy" in check.faults(tmp_path)


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="make docs installs it")
    import os
    import subprocess

    built = tmp_path / "site"
    env = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert check.faults(built) == []
    assert (built / "search" / "search_index.json").is_file()
    for page in ("reference/cli/run.html", "reference/parts/losses.html", "reference/settings/index.html"):
        assert (built / page).is_file()
    assert "rows of the largest class" in (built / "reference/settings/data.html").read_text(encoding="utf-8")
    assert "balanced_softmax" in (built / "reference/parts/losses.html").read_text(encoding="utf-8")
