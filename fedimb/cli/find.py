"""Finds the run folder for a path, a folder's name, the hash at its end, a run id, or the start of one of these."""

import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedimb.cli.places import OUTPUT_DIR
from fedimb.errors import ConfigError, FedimbError

_SHORTEST_ID = 6  # characters; fewer would match by accident


def run_folders(output_dir: str | Path = OUTPUT_DIR, study: str | None = None) -> list[Path]:
    """The run folders ``<output_dir>/<study>/<run>``, by study, then by name; hidden folders are skipped."""
    found = Path(output_dir).expanduser().glob("*/*/config.json")
    folders = [file.parent for file in found if not file.parent.name.startswith(".")]
    return sorted(f for f in folders if study is None or f.parent.name == study)


def find_run(word: str, output_dir: str | Path = OUTPUT_DIR) -> Path:
    """Find the one run folder that ``word`` names.

    Args:
        word: a path; or, for a run below ``output_dir``, its name with or without the study, the hash its name ends
            with, its fedimb or MLflow run id, or the beginning of one of these.
        output_dir: where to look for runs if ``word`` is not a path.

    Raises:
        ConfigError: several runs match; names them.
        FedimbError: no run matches; names the nearest, and how to list all.
    """
    if (Path(word).expanduser() / "config.json").is_file():
        return Path(word).expanduser()
    folders = run_folders(output_dir)
    if word:
        for fitting in (_equal, _beginning, _hash, _identity):
            if found := [folder for folder in folders if fitting(folder, word)]:
                return _only(found, word)
    raise FedimbError(
        f"{word} is not a run folder: it has no config.json, and no run below {output_dir} has that name."
        f"{nearest_runs(word, [folder.name for folder in folders], output_dir)}"
    )


def nearest_runs(word: str, names: Iterable[str], output_dir: str | Path = OUTPUT_DIR) -> str:
    """The end of an error: up to five of ``names`` that are near ``word``, and the command that lists all runs."""
    known = sorted(set(names))
    if not known:
        return " There are no runs yet: `fedimb run` starts one."
    close = difflib.get_close_matches(word, known, n=5, cutoff=0.5)
    shown = {0: "", 1: f" Did you mean '{close[0] if close else ''}'?"}.get(
        len(close), f" Nearest: {', '.join(close)}."
    )
    command = "fedimb runs list" + (f" --output-dir {output_dir}" if str(output_dir) != OUTPUT_DIR else "")
    return f"{shown} `{command}` lists all runs."


def _only(found: list[Path], word: str) -> Path:
    if len(found) == 1:
        return found[0]
    shown = ", ".join(_path(folder) for folder in found[:6]) + (", ..." if len(found) > 6 else "")
    raise ConfigError(f"'{word}' matches {len(found)} runs: {shown}; give more of the name")


def _path(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _equal(folder: Path, word: str) -> bool:
    return word in (folder.name, _path(folder))


def _beginning(folder: Path, word: str) -> bool:
    return folder.name.startswith(word) or ("/" in word and _path(folder).startswith(word))


def _hash(folder: Path, word: str) -> bool:
    """Names end in -<8 hex digits of the configuration's hash>, possibly followed by -2, -3, ..."""
    return len(word) >= 4 and any(part.startswith(word) for part in folder.name.split("-")[-2:])


def _identity(folder: Path, word: str) -> bool:
    return len(word) >= _SHORTEST_ID and any(one.startswith(word) for one in _identities(folder))


def _identities(folder: Path) -> Iterator[str]:
    for file in ("rows.json", "tracking.json"):
        try:
            stored = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not written yet, or damaged: the run has no id
            continue
        if file == "rows.json":
            yield from (str(row.get("tags", {}).get("fedimb.run_id", "")) for row in stored)
        else:
            yield from map(str, stored.get("runs", {}).values())
