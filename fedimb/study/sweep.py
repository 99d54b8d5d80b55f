"""Expands ``key=a,b,c`` into configurations: every combination, all checked before the first one runs."""

import hashlib
import itertools
from collections.abc import Sequence

from fedimb.config.compose import compose, refuse_unread
from fedimb.config.load import row_label
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig
from fedimb.study.trunks import share_trunks
from fedimb.study.work import Task


def expand(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the words' values; a list in brackets is one value.

    ``["seed=0,1", "loss=ce,focal"]`` -> four tuples of two words, the last word varying fastest.

    Raises:
        ConfigError: an empty value, or one given twice.
    """
    return list(itertools.product(*[[f"{key}={v}" for v in values] for key, values in map(_split, words)]))


def _split(word: str) -> tuple[str, list[str]]:
    key, sign, text = word.partition("=")
    if not sign:
        raise ConfigError(f"cannot read '{word}': give key=value, or key=a,b,c to try several")
    values = top_level(text)
    if len(values) > 1 and "" in (value.strip() for value in values):
        raise ConfigError(f"'{word}' has an empty value; remove a comma, or quote the text that holds one")
    if len(set(values)) < len(values):
        raise ConfigError(f"'{word}' gives a value twice")
    return key, values


def top_level(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "[{(":
            depth += 1
        elif sign in "]})":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def name_of(words: Sequence[str]) -> str:
    """The folder of an unnamed sweep: the same arguments give the same folder, so that a sweep can be continued."""
    return f"sweep-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:8]}"


def sweep_tasks(words: Sequence[str]) -> tuple[list[RunConfig], list[Task]]:
    """A sweep's configurations and their tasks; those that differ in a calibration's arguments alone share one.

    Raises:
        ConfigError: a combination that cannot be run, or that is the same run as another (names it).
    """
    fixed = [] if any(w.startswith("study=") for w in words) else [f"study={name_of(words)}"]
    if not any(w.startswith(("engine=", "engine.")) for w in words):
        fixed.append("engine=inline")  # each worker process does complete runs
    keys = [word.partition("=")[0] for word in words]
    varied = {word.partition("=")[0] for word in words if len(_split(word)[1]) > 1}
    if twice := [key for key in keys if key in varied and keys.count(key) > 1]:
        raise ConfigError(f"'{twice[0]}' is given twice; give all its values in one word: {twice[0]}=a,b")
    combinations = list(expand(words))
    # All are set in the order of the words, also those that not every run must read.
    alike = [word for word in words if word.partition("=")[0] not in varied] if len(combinations) > 1 else []
    configs: list[RunConfig] = []
    tasks: dict[str, Task] = {}
    for combination in combinations:
        shown = " ".join(word for word in combination if word.partition("=")[0] in varied)
        try:
            config = validate(
                compose(combination, shared=fixed, about=[word for word in combination if word not in alike])
            )
        except ConfigError as error:
            raise ConfigError(f"{shown}: {error}" if shown else str(error)) from None
        labels = [row_label(config, calibration) for calibration in config.calibration]
        task = Task.of("run", config, shown or "the only run", [*labels, *shown.split(" ")])
        if task.key in tasks:
            raise ConfigError(
                f"'{shown}' and '{tasks[task.key].what}' are the same run: engine, tracking, study and names do not "
                "change its numbers, nor does 1.0 for 1; leave one out"
            )
        configs.append(config)
        tasks[task.key] = task
    refuse_unread((), combinations, about=alike)
    return configs, share_trunks(list(tasks.values()), same_parts=True)[0]
