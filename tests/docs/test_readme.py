"""The README's first screen: what it is, installed, run, seen, why; and the output shown is what the command prints."""

import csv
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST = README.splitlines()[:80]


def shown(command: str) -> list[str]:
    """The lines of the first block after a command's own line."""
    after = README.split(f"\n    {command}\n", 1)[1]
    return after.split("```\n", 2)[1].splitlines()


def without_numbers(lines: list[str]) -> list[str]:
    """What a line says on any machine: measured figures and their bars are left out, counts of rows are not."""
    measured = re.compile(r"\d+\.\d+|(?<=found )\d+|\d+(?= %\))")
    return [re.sub(r"[█▏▎▍▌▋▊▉·]+", "bar", measured.sub("n", line)) for line in lines]


def test_the_first_screen_says_what_it_is_installs_runs_one_command_and_says_why() -> None:
    text = "\n".join(FIRST)
    assert FIRST[2].startswith("**Federated learning for long-tailed data")
    order = [text.index(part) for part in ("make install", "\n    fedimb run\n", "minority recall", "## Why")]
    assert order == sorted(order)
    assert "docs/index.md" in text
    assert "CONTRIBUTING.md" in text


def test_comparisons_come_after_the_first_screen() -> None:
    text = "\n".join(FIRST)
    assert "| ---" not in text
    assert "±" not in text
    assert "±" in README


def test_the_first_command_prints_what_is_shown(tmp_path: Path) -> None:
    env = os.environ | {"COLUMNS": "100", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-m", "fedimb", "run", "rounds=1", "engine=inline", "tracking=none"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.replace(f"{tmp_path}/", "").rstrip("\n").splitlines()
    printed = [line for line in printed if not line.startswith("never predicted:")]  # after one round, not after all
    hashed = re.compile(r"-s0-[0-9a-f]{8}")  # other settings, another hash
    assert [hashed.sub("", line) for line in without_numbers(printed)] == [
        hashed.sub("", line) for line in without_numbers(shown("fedimb run"))
    ]


def test_the_demos_tables_are_those_of_its_files() -> None:
    tables = README.split("$ fedimb demo\n", 1)[1].split("```", 1)[0]
    parts = re.split(r"active learning: |synthetic samples: ", tables)
    for part, name in zip(parts, ("rows", "labels_rows", "server_rows"), strict=True):
        found: dict[str, list[list[float]]] = defaultdict(list)
        with (ROOT / "experiments" / "demo" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                scores = [float(line[k]) for k in ("macro_recall", "minority_recall", "min_class_recall")]
                found[line["label"]].append(scores)
        shown = {
            words[0]: re.findall(r"(\d\.\d+) ±", line)
            for line in part.split("\n\n")[0].splitlines()
            if (words := line.split()) and "±" in line and words[0] != "mean"
        }
        assert shown.keys() == found.keys()
        for label, runs in found.items():
            means = [sum(column) / len(runs) for column in zip(*runs, strict=True)]
            assert all(abs(float(a) - b) < 6e-4 for a, b in zip(shown[label], means, strict=True)), label


def test_make_is_how_the_project_is_driven() -> None:
    for target in ("install", "demo", "test"):
        assert f"make {target}" in README


def test_the_folders_shown_are_those_there_are() -> None:
    block = README.split("## The folders", 1)[1].split("```", 2)[1]
    named = set(re.findall(r"(\w+)/", block.split("strategies/    SERVER")[0])) - {"fedimb"}
    there = {folder.name for folder in (ROOT / "fedimb").iterdir() if folder.is_dir() and not folder.is_symlink()}
    four = {folder.name for folder in (ROOT / "fedimb" / "deploy").iterdir() if (folder / "__init__.py").is_file()}
    assert named == (there | four) - {"__pycache__", "templates"}
