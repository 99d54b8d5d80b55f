"""Flips random bytes and edits random keys of run folders: each is named by a reader, or changes no result."""

import contextlib
import io
import json
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kill_matrix import outcome
from small_runs import launch_in

from fedimb.cli import main
from fedimb.rundir.checkpoints import Checkpoints

WORDS = ("engine=inline", "clients.count=3", "rounds=3", "data.n_max=60", "local.epochs=1", "evaluation.last_k=1")
RUNS = {
    "scaffold": ("aggregator=scaffold",),
    "scope": ("strategy=scope", "strategy.scope.warmup=1"),
    "fairfal": ("strategy=fairfal", "strategy.fairfal.cycles=3"),
    "adjusted": ("calibration=[none,la_post]", "prior.provenance=clear_sum"),
    "adam": ("aggregator=fedadam",),
}
SEEDS = (0, 1)
HARMLESS = ("lock", "journal.jsonl", "tracking.id", "tracking.json", "processes.json", "environment.json")
"""Files that no result is computed from: a change in one of them may go unseen."""


@dataclass(frozen=True)
class Case:
    """A run folder to damage.

    Attributes:
        folder: it; finished, or stopped on its way.
        whole: `outcome` of the uninterrupted run, and its result.
        finished: whether it has finished.
    """

    folder: Path
    whole: tuple[bytes, list, Any]
    finished: bool


class _Stopped(BaseException):
    """Ends a run like a killed process."""


def cases(root: Path) -> list[Case]:
    """Twenty run folders: ten finished, and the same ten stopped after their third checkpoint."""
    found = []
    for name, words in RUNS.items():
        for seed in SEEDS:
            whole = launch_in(root / f"{name}-{seed}", *WORDS, *words, f"seed={seed}").folder
            expected = (*outcome(whole), _result(whole))
            cut = _stopped(root / f"{name}-{seed}-cut", *words, f"seed={seed}")
            found += [Case(whole, expected, True), Case(cut, expected, False)]
    return found


def _stopped(cwd: Path, *words: str) -> Path:
    written = Checkpoints.write

    def write(self: Checkpoints, *content: Any) -> None:
        written(self, *content)
        if self._manifest.number == 3:
            raise _Stopped

    Checkpoints.write = write  # type: ignore[method-assign]
    try:
        with contextlib.suppress(_Stopped):
            launch_in(cwd, *WORDS, *words)
    finally:
        Checkpoints.write = written  # type: ignore[method-assign]
    (folder,) = (cwd / "runs" / "default").iterdir()
    return folder


def _result(folder: Path) -> Any:
    result = json.loads((folder / "result.json").read_text())
    return {key: result[key] for key in ("rows", "rounds", "train_counts", "class_names", "minority", "seed")}


def flips(cases: list[Case], number: int, seed: int = 16) -> Iterator[tuple[Case, str, Callable[[Path], str]]]:
    """(case, file, function that flips one bit of it and says which)."""
    rng = random.Random(f"flips {seed}")
    for _ in range(number):
        case = rng.choice(cases)
        there = [path for path in case.folder.rglob("*") if path.is_file() and path.stat().st_size]
        files = sorted(str(path.relative_to(case.folder)) for path in there)
        name, share, bit = rng.choice(files), rng.random(), rng.randrange(8)

        def flip(path: Path, share: float = share, bit: int = bit) -> str:
            data = bytearray(path.read_bytes())
            at = int(share * len(data))
            data[at] ^= 1 << bit
            path.write_bytes(data)
            return f"bit {bit} of byte {at}"

        yield case, name, flip


def edits(cases: list[Case], number: int, seed: int = 16) -> Iterator[tuple[Case, str, Callable[[Path], str]]]:
    """(case, file, function that changes one entry of it and says which)."""
    rng = random.Random(f"edits {seed}")
    for _ in range(number):
        case = rng.choice(cases)
        names = sorted(str(p.relative_to(case.folder)) for p in case.folder.rglob("*.json"))
        name, draw = rng.choice(names), rng.random()

        def edit(path: Path, draw: float = draw) -> str:
            tree = json.loads(path.read_text())
            leaves = list(_leaves(tree))
            parent, key = leaves[int(draw * len(leaves))]
            before = parent[key]
            parent[key] = _other(before)
            path.write_text(json.dumps(tree))
            return f"{key}: {before!r} -> {parent[key]!r}"

        yield case, name, edit


def _leaves(node: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, dict | list) and value:
            yield from _leaves(value)
        else:
            yield node, key


def _other(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else [1]


def judge(case: Case, name: str, damage: Callable[[Path], str], cwd: Path) -> tuple[str, str, str]:
    """Damage a copy of a folder, and let all read it.

    Returns:
        (``found``, ``harmless`` or ``MISSED``, what was done, what was said).
    """
    folder = cwd / "runs" / "default" / case.folder.name
    shutil.copytree(case.folder, folder)
    before = Path.cwd()
    os.chdir(cwd)
    try:
        done = damage(folder / name)
        readers = [("show", str(folder))]
        if case.finished:
            readers += [("predict", str(folder), "--out", "p.csv"), ("report", str(folder), "--to", "r.html")]
        said = [_say(*words) for words in readers]
        resumed, text = _say("run", "--resume", str(folder))
        texts = [text for _, text in (*said, (resumed, text))]
        named = [t for t in texts if str(folder / name) in t or (folder.name in t and Path(name).name in t)]
        odd = [t for t in texts if "Traceback" in t]
        fine = resumed == 0 and (*outcome(folder), _result(folder)) == case.whole
        if odd or not (named or fine) or (resumed == 0 and not fine):
            return "MISSED", done, "; ".join(odd) or text
        return ("found" if named else "harmless"), done, (named or [""])[0]
    finally:
        os.chdir(before)
        shutil.rmtree(cwd / "runs", ignore_errors=True)


def _say(*words: str) -> tuple[int, str]:
    """Exit code and what was said, warnings included."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger("fedimb").addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(text):
            try:
                code = main(list(words))
            except Exception as error:
                return 1, f"Traceback: {words[0]}: {type(error).__name__}: {error}"
        return code, text.getvalue()
    finally:
        logging.getLogger("fedimb").removeHandler(handler)
