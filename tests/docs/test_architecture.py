"""The architecture page says what the code is: its floors, its files, its pictures."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PICTURES = ("architecture-message.svg", "architecture-sample.svg")


def floors_of_the_test() -> list[set[str]]:
    """FLOORS of tests/packaging/test_floors.py, the package itself under its name."""
    tree = ast.parse((ROOT / "tests" / "packaging" / "test_floors.py").read_text(encoding="utf-8"))
    (value,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    ]
    return [{name or "fedimb" for name in floor} for floor in ast.literal_eval(value)]


def floors_of_the_page() -> list[set[str]]:
    rows = re.findall(r"^\| (\d+) \| (`[^|]*`) \|", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    return [set(re.findall(r"`([^`]+)`", names)) for _, names in rows]


def test_the_table_of_floors_is_the_tests() -> None:
    assert floors_of_the_page() == floors_of_the_test()


def files_named(text: str) -> set[str]:
    """What looks like a file or folder of the package: ``serverapp/loop.py``, ``data/sources/``, ``clients/*.py``."""
    return set(re.findall(r"(?<![\w/.])[a-z_]+(?:/[a-z_]+)*/(?:[a-z_*]+\.py)?", text))


def exists(name: str) -> bool:
    return any(
        any(base.glob(name.rstrip("/")))
        for base in (ROOT, ROOT / "fedimb", ROOT / "fedimb" / "training", ROOT / "fedimb" / "data")
    )


@pytest.mark.parametrize("name", sorted(files_named(" ".join(re.findall(r"`([^`\n]+)`", PAGE)))))
def test_every_file_the_page_names_exists(name: str) -> None:
    assert exists(name), name


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_is_small_readable_in_the_dark_and_names_files_that_exist(picture: str) -> None:
    text = (ROOT / "docs" / picture).read_text(encoding="utf-8")
    assert f"]({picture})" in PAGE
    assert len(text.encode()) < 40_000
    assert "prefers-color-scheme: dark" in text
    tree = ElementTree.fromstring(text)
    spaced = {"svg": "http://www.w3.org/2000/svg"}
    title = tree.find("svg:title", spaced)
    assert title is not None
    assert title.text
    assert int(tree.attrib["width"]) <= 400, "wider than a telephone: its text would be scaled down"
    named = {word for node in tree.iterfind("svg:text[@class='file']", spaced) for word in (node.text or "").split()}
    wrong = sorted(word for word in named - {"·"} if not exists(word) and not exists(f"serverapp/{word}"))
    assert not wrong


def test_a_file_that_is_gone_is_noticed() -> None:
    assert files_named("see run/loop.py and data/sources/") == {"run/loop.py", "data/sources/"}
    assert not exists("run/loop.py")
    assert exists("serverapp/loop.py")
