"""Two models on the same test rows, for ``fedimb compare A B`` and ``fedimb report A B``: finds what the words name."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR
from fedimb.errors import ConfigError, FedimbError, nearest

if TYPE_CHECKING:
    from fedimb.cli.output.models import ModelsCompared
    from fedimb.study.model_pairs import ModelPair, ScoredRow, SeedPairs
    from fedimb.study.results import Result

_SETTING = re.compile(r"[+~]{0,2}[\w./@-]+=")
_STUDY_OPTIONS = {"workers": None, "isolate": False, "dry_run": False, "uri": None, "plot": False}


@dataclass(frozen=True)
class _Side:
    """What one word names: a run's row, or a study's row as setting -> seed -> the run's row or why there is none."""

    label: str
    run: "ScoredRow | None" = None
    study: "Mapping[str, Mapping[int, ScoredRow | str]] | None" = None


def second_model(study: str, words: Sequence[str]) -> str | None:
    """The second word of ``fedimb compare A B`` if it names a run or a row of a study; None if the words are settings.

    Raises:
        ConfigError: more than two models.
    """
    named = [word for word in words if Path(word).expanduser().exists() or not _SETTING.match(word)]
    if not named or Path(study).expanduser().is_file():
        return None
    if len(words) > 1:
        raise ConfigError(f"give two models, and no settings; got {' '.join([study, *words])}")
    return named[0]


def print_pairs(args: argparse.Namespace, first: str, second: str) -> "ModelsCompared":
    """``fedimb compare A B``."""
    from fedimb.cli.output.models import ModelsCompared
    from fedimb.report.model_pairs import models_text

    if wrong := [name for name, usual in _STUDY_OPTIONS.items() if getattr(args, name, usual) != usual]:
        raise ConfigError(f"--{wrong[0].replace('_', '-')} is for studies: two finished runs are only read")
    pairs = find_pairs(first, second, args.output_dir)
    if not args.json:
        print("\n\n\n".join(models_text(found) for found in pairs))
    return ModelsCompared.of_pairs(pairs)


def find_pairs(first: str, second: str, output_dir: str = OUTPUT_DIR) -> "list[ModelPair | SeedPairs]":
    """Compare what two words name: two runs, or two rows of studies, setting by setting.

    Raises:
        ConfigError: a word names several runs, a study without a row, or one side is a run and the other a study.
        FedimbError: nothing by this name, or the two cannot be tested on the same rows.
    """
    from fedimb.study.model_pairs import compare_models, compare_seeds

    a, b = (_side(word, output_dir) for word in (first, second))
    if a.run is not None and b.run is not None:
        one, other = a.run, b.run
        if one.label == other.label:
            one, other = (replace(row, label=f"{row.label} {side}") for row, side in ((one, "A"), (other, "B")))
        if (one.folder.resolve(), a.label) == (other.folder.resolve(), b.label):
            raise ConfigError(f"{first} and {second} are the same row of the same run; give two models")
        return [compare_models(one, other)]
    if a.study is None or b.study is None:
        raise ConfigError(f"{first} and {second}: give two runs, or a row of a study (STUDY:ROW) for each")
    if first == second:
        raise ConfigError(f"{first} is given twice; give two rows")
    labels = (a.label, b.label) if a.label != b.label else (first, second)
    if len(a.study) == len(b.study) == 1:  # of two studies, each with its one setting, whatever they call it
        ((setting, seeds_a),), (seeds_b,) = a.study.items(), b.study.values()
        return [compare_seeds(seeds_a, seeds_b, setting, labels)]
    if not (shared := [setting for setting in a.study if setting in b.study]):
        have = f"{', '.join(a.study)}; {', '.join(b.study)}"
        raise FedimbError(f"{first} and {second} have no setting in common ({have})")
    return [compare_seeds(a.study[setting], b.study[setting], setting, labels) for setting in shared]


def page_place(found: "ModelPair | SeedPairs") -> Path:
    """Where the page on a comparison is written: the folder of A's run, or of A's study."""
    from fedimb.study.model_pairs import ModelPair

    if isinstance(found, ModelPair):
        folder, same = found.a.folder, found.a.folder.resolve() == found.b.folder.resolve()
        name = f"against {found.b.label if same else found.b.folder.name}"
    else:
        folder = next(iter(found.pairs.values())).a.folder.parent
        name = f"{found.a} against {found.b}"
    return folder / (re.sub(r"[^\w.+-]", "-", name) + ".html")


def _side(word: str, output_dir: str) -> _Side:
    from fedimb.cli.find import find_run
    from fedimb.study.model_pairs import read_row

    if word.startswith("mlflow:"):
        raise ConfigError(f"{word}: a paired test reads run folders; MLflow keeps no folder of another machine")
    name, row = word, ""
    if ":" in word and not Path(word).expanduser().exists():
        name, _, row = word.rpartition(":")
    if (study := _study_folder(name, output_dir)) is not None:
        return _study_row(study, row, word)
    run = read_row(find_run(name, output_dir), row or None)
    return _Side(run.label, run=run)


def _study_folder(name: str, output_dir: str) -> Path | None:
    """The folder of a study, by path or by name below ``output_dir``."""
    for folder in (Path(name).expanduser(), Path(output_dir).expanduser() / name):
        if name and folder.is_dir() and not (folder / "config.json").is_file():
            return folder
    return None


def _study_row(folder: Path, label: str, word: str) -> _Side:
    from fedimb.study.folders import collect

    study = collect(folder)
    if label not in study.labels:
        known = nearest(label, study.labels) if label else f" Its rows: {', '.join(study.labels)}."
        raise ConfigError(f"{word} names no row of the study {folder}; give STUDY:ROW.{known}")
    found: dict[str, dict[int, ScoredRow | str]] = {}
    for result in study.results:
        if result.label == label:
            found.setdefault(result.setting, {})[result.seed] = _scored(result, word)
    return _Side(label, study=found)


def _scored(result: "Result", word: str) -> "ScoredRow | str":
    from fedimb.study.model_pairs import read_row

    if result.status != "finished":
        return f"{result.label} {result.status} ({result.error})"
    if result.folder is None:
        raise ConfigError(f"{word} is computed, not run: it has no model and no scores of test rows")
    return read_row(result.folder, result.row, result.label)
