"""docs/systems.md: every number of the list stands there once, and what is served has a command that composes."""

import contextlib
import importlib
import io
import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from fedimb.config.compose import compose
from fedimb.errors import FedimbError

main = importlib.import_module("fedimb.cli.main")  # the package's attribute of that name is the function
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")
CONFIGS = ROOT / "configs"
KEYS = set(yaml.safe_load((CONFIGS / "config.yaml").read_text(encoding="utf-8")))
SERVED = ("yes", "part", "adapter", "no")


class Row(NamedTuple):
    """A line of the page's tables, and the numbers it is about."""

    numbers: tuple[int, ...]
    name: str
    served: str
    how: str

    @property
    def commands(self) -> list[str]:
        return re.findall(r"`(fedimb [^`]+)`", self.how)


def numbers_of(cell: str) -> tuple[int, ...]:
    """``118-121, 157`` -> 118, 119, 120, 121, 157."""
    found: list[int] = []
    for word in cell.split(", "):
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def rows(text: str) -> list[Row]:
    lines = re.findall(r"^\| (\d[^|]*) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    return [Row(numbers_of(number), *cells) for number, *cells in lines]


ROWS = rows(PAGE)
RUNS = sorted({command for row in ROWS for command in row.commands if command.startswith("fedimb run")})


def test_every_number_is_there_once() -> None:
    assert sorted(number for row in ROWS for number in row.numbers) == list(range(1, 161))


def test_the_first_lines_count_what_the_tables_say() -> None:
    counted: Counter[str] = Counter()
    for row in ROWS:
        counted[row.served] += len(row.numbers)
    said = re.search(r"(\d+) are here, (\d+) in part, (\d+) by an adapter, (\d+) not", PAGE)
    assert said is not None
    assert [int(number) for number in said.groups()] == [counted[served] for served in SERVED]
    assert sum(counted.values()) == 160


def test_what_is_served_has_a_command_and_what_is_not_has_a_reason() -> None:
    for row in ROWS:
        assert row.served in SERVED, row
        if row.served == "no":
            assert len(row.how.split()) > 3, row
        else:
            assert row.commands, row


def test_commands_that_are_not_runs_are_ones_that_the_parsers_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_parser", cache(main._parser))
    wrong = []
    for command in {command for row in ROWS for command in row.commands} - set(RUNS):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                main._parse(shlex.split(command)[1:])
        except SystemExit:
            wrong.append(f"{command}: {said.getvalue()}")
    assert wrong == []


def gone(words: list[str]) -> list[str]:
    """Words of a run that name a part without settings, or a setting of no group and no key of the main file."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        group, _, setting = key.partition(".")
        if not (CONFIGS / group).is_dir():
            found += [word] if group not in KEYS else []
        elif not setting and not value.startswith("["):
            found += [word] if not (CONFIGS / group / f"{value}.yaml").is_file() else []
    return found


def test_every_part_that_a_run_names_is_there() -> None:
    """What the slow test finds for certain, in no time."""
    assert {command: wrong for command in RUNS if (wrong := gone(shlex.split(command)[2:]))} == {}
    assert gone(["loss=fokal", "lokal.lr=1", "data=digits", "rounds=3"]) == ["loss=fokal", "lokal.lr=1"]


@pytest.mark.slow
def test_every_run_composes() -> None:
    assert len(RUNS) > 60
    wrong = []
    for command in RUNS:
        try:
            compose(shlex.split(command)[2:])
        except FedimbError as error:
            wrong.append(f"{command}: {error}")
    assert wrong == []


def test_a_number_twice_a_word_that_is_none_and_a_part_that_is_gone_are_noticed() -> None:
    first, second = rows("| 1-3 | a | yes | `fedimb run loss=fokal` |\n| 3, 7 | b | no | not there at all |\n")
    assert first.numbers + second.numbers == (1, 2, 3, 3, 7)
    assert first.commands == ["fedimb run loss=fokal"]
    with pytest.raises(FedimbError, match="fokal"):
        compose(["loss=fokal"])
