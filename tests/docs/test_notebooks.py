"""The notebooks: they run as they stand and show what they showed; their figures are those of the commands."""

import contextlib
import html
import importlib
import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from fedimb.cli import main

ROOT = Path(__file__).parents[2]
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from website import notebooks  # noqa: E402

NAMES = [path.stem for path in notebooks.notebooks()]
FIGURE = re.compile(r"-?\d[\d.,e+-]*|nan|n/a|[█▇▆▅▄▃▂▁ ]{3,}", re.IGNORECASE)


def stored(name: str) -> dict[str, Any]:
    return dict(json.loads((notebooks.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")))


def masked(notebook: dict[str, Any]) -> list[str]:
    """What a notebook shows without its figures: another processor rounds otherwise. Of a page the first words."""
    texts = [text if "<iframe" not in text else text[:400] for text in notebooks.outputs(notebook)]
    return [" ".join(FIGURE.sub(" # ", text).split()) for text in texts]


def cells(text: str) -> dict[str, list[str]]:
    """Rows of the first table of an output by their first cell."""
    lines = re.findall(r"<tr><th[^>]*>(.*?)</th>(.*?)</tr>", text.partition("<tbody>")[2], re.DOTALL)
    return {html.unescape(name): re.findall(r"<td[^>]*>(.*?)</td>", rest) for name, rest in lines}


def test_there_are_three_and_each_is_a_page_with_all_its_outputs() -> None:
    assert NAMES == ["four-strategies", "label-with-fairfal", "report"]
    pages = notebooks.pages()
    for name in NAMES:
        made = stored(name)
        code = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] and cell["execution_count"] for cell in code), f"{name}: make notebooks"
        assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < 150_000
        page = pages[f"notebooks/{name}.md"]
        assert page.startswith("# ")
        assert page.count("```python\n") == len(code)
        assert page.count('<div class="output">') + page.count("```text") == len(notebooks.outputs(made))
        assert not re.search(r"/(tmp|home|root|work)/|\x1b", json.dumps(made))


def test_a_blank_line_does_not_end_an_output_on_the_page() -> None:
    shown = {
        "output_type": "execute_result",
        "data": {"text/html": ["<div>\n", "<style scoped>\n\n</style>\n", "\n</div>"]},
    }
    cell = {"cell_type": "code", "source": ["x"], "outputs": [shown]}
    assert '<div class="output">\n<div>\n</div>\n</div>' in notebooks.markdown({"cells": [cell]}, "n.ipynb")


def test_commands_in_their_text_are_accepted() -> None:
    parser = importlib.import_module("fedimb.cli.main")
    texts = ["".join(c["source"]) for name in NAMES for c in stored(name)["cells"] if c["cell_type"] == "markdown"]
    found = [command for text in texts for command in re.findall(r"`fedimb ([^`]+ [^`]+)`", text)]
    assert len(found) >= 2
    for command in found:
        parser._parse(shlex.split(command))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_its_figures_are_those_of_the_commands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    done = notebooks.executed(notebooks.FOLDER / f"{name}.ipynb", tmp_path)
    shown = notebooks.outputs(done)
    assert masked(done) == masked(stored(name))
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    if name == "report":  # the command runs anew, in another folder
        with contextlib.redirect_stdout(said):
            words = ["rounds=12", "clients.count=6", "local.epochs=2", "calibration=[none,la_post]"]
            assert main(["run", *words, "engine=inline", "tracking=none", "output_dir=other", "--json"]) == 0
            (folder,) = (tmp_path / "runs" / "default").iterdir()
            assert main(["report", str(folder), "--to", "report.html"]) == 0
        rows = json.loads(said.getvalue().partition("\n}")[0] + "\n}")["rows"]
        for row in rows:
            scores = [row["metrics"][score] for score in ("minority_recall", "macro_recall", "min_class_recall")]
            assert cells(shown[0])[row["label"]][:3] == [f"{score:.3f}" for score in scores]
        page = html.unescape(re.search(r'srcdoc="([^"]*)"', shown[3])[1])  # type: ignore[index]
        assert page == Path("report.html").read_text(encoding="utf-8")
        return
    (study,) = (path.parent for path in (tmp_path / "runs").glob("*/study.json"))
    with contextlib.redirect_stdout(said):
        assert main(["compare", f"runs/{study.name}", "--no-report"]) == 0
    table = said.getvalue().partition("\n\n")[0].splitlines()
    found = cells(shown[0])
    assert len(found) == 4
    for label, (seeds, minority, macro, least, *_) in found.items():
        (line,) = (line for line in table if line.split()[:1] == [label])
        printed = line.replace("*", " ").replace("+-", "±").split()
        assert printed[1:11] == [seeds, *f"{macro} {minority} {least}".split()]
