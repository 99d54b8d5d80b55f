"""``fedimb predict``: scores data with a finished run's model, as a CSV with a model card."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR
from fedimb.plain import Settings

if TYPE_CHECKING:
    from fedimb.cli.output import Predicted
    from fedimb.cli.scoring import Scored
    from fedimb.cli.verbs import Verbs
    from fedimb.rundir.result import RunResult

_ABOUT = """\
Score data with the model of a finished run. Writes one line per row (predicted class, a score per class, the true
label), and a model card, CSV.card.md: what the model was trained on and how reliable it is, class by class.

  fedimb predict fedavg-s0 --out test.csv                       the run's own test set
  fedimb predict fedavg-s0 new.npz --out new.csv                a file: .npz, .csv, .zip, or a folder of pictures
  fedimb predict fedavg-s0 new.yaml --out new.csv               a data YAML (source: {name: ..., ...})
  fedimb predict fedavg-s0 data=digits --out all.csv            settings as for `fedimb run`
  fedimb predict fedavg-s0 --source name=npz path=new.npz --out new.csv
  fedimb predict la_post-s0 new.npz --calibration la_post --out new.csv

A file of the kind the run was trained on is read with the run's settings (column names, image size). The data's class
names must be the run's, in the same order. Scores are the softmax of the calibrated logits. If rows have several
labels, scores are one sigmoid per class, and the classes above 0.5 are predicted."""

BY_SUFFIX = {
    ".npz": ("npz",),
    ".csv": ("image_csv", "tabular_csv"),
    ".zip": ("image_folder",),
    "": ("image_folder",),
}
_PATHS = ("path", "file", "folder", "root", "csv", "paths", "files")  # how sources name what they read


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    predict = verbs.add_parser(
        "predict",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.add_argument("run", metavar="RUN", help="folder, name, or the beginning of a name")
    predict.add_argument("data", nargs="*", metavar="DATA", help="file, folder, data YAML, or data=... settings")
    predict.add_argument(
        "--source",
        nargs="+",
        metavar="key=value",
        help="a source and its arguments, name=... first (see `fedimb list sources`)",
    )
    predict.add_argument(
        "--out", required=True, metavar="CSV", help="file to write; the model card goes to CSV.card.md"
    )
    predict.add_argument("--calibration", metavar="NAME", help="one of the run's calibrations (default: its first)")
    predict.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    predict.set_defaults(handler=predict_command)


def predict_command(args: argparse.Namespace) -> "Predicted":
    """``fedimb predict``."""
    import sys

    from fedimb.cli.card import model_card
    from fedimb.cli.find import find_run
    from fedimb.cli.output import Predicted
    from fedimb.cli.scoring import score, write_csv
    from fedimb.records import write_atomic
    from fedimb.rundir.result import RunResult

    out = Path(args.out).expanduser()
    result = RunResult.read(find_run(args.run, args.output_dir))
    scored = score(result, source_of(args.data, args.source, result), args.calibration)
    write_csv(scored, out)
    card = out.with_name(out.name + ".card.md")
    write_atomic(card, model_card(result, scored).encode())
    for warning in scored.warnings:
        print(f"fedimb: {warning}", file=sys.stderr)
    print(f"{len(scored.rows):,} rows: {out}\nmodel card: {card}")
    return Predicted(
        folder=str(result.folder),
        rows=len(scored.rows),
        out=str(out),
        card=str(card),
        scores=dict(_say_how_well(scored, result)),
        warnings=list(scored.warnings),
    )


def _say_how_well(scored: "Scored", result: "RunResult") -> dict[str, float]:
    """Print the scores against the labels, if there are any, and return them."""
    from fedimb.evaluation.confusion import confusion_matrix
    from fedimb.evaluation.metrics import scores
    from fedimb.evaluation.multilabel import label_confusion

    known = scored.labels.reshape(len(scored.labels), -1).min(axis=1) >= 0
    found: dict[str, float] = {}
    if known.any():
        true, said = scored.labels[known], scored.predicted[known]
        n = len(result.class_names)
        found = scores(
            label_confusion(true, said) if scored.several else confusion_matrix(true, said, n), result.minority
        )
        shown = [
            f"{name.replace('_', ' ')} {'n/a' if found[name] != found[name] else format(found[name], '.3f')}"
            for name in ("macro_recall", "minority_recall", "macro_specificity", "accuracy")
            if name in found
        ]
        print(f"against the labels: {', '.join(shown)}")
    return found


def source_of(words: list[str], source: list[str] | None, result: "RunResult") -> Settings | None:
    """The source given by DATA or --source, for `fedimb.data.store.open_source`; None: the run's test set.

    Raises:
        ConfigError: both given, a word that is neither a path nor a setting, or a YAML without a source.
        DataError: no such file.
    """
    from fedimb.errors import ConfigError

    if source and words:
        raise ConfigError("give either DATA or --source, not both (DATA comes before --source)")
    if source:
        return _settings(source)
    if not words:
        return None
    if all("=" in word for word in words) and not Path(words[0]).exists():
        from fedimb.config.compose import compose

        chosen: Settings = compose(words)["data"]["source"]
        return chosen
    if len(words) > 1:
        raise ConfigError(f"cannot use {' '.join(words)}: give one file or folder, or data=... settings")
    return _from_path(Path(words[0]).expanduser(), result)


def _settings(words: list[str]) -> Settings:
    """``name=npz path=new.npz`` as a mapping; values are read as `fedimb run` reads them."""
    from fedimb.config.compose import compose
    from fedimb.errors import ConfigError

    named = dict(word.partition("=")[::2] for word in words)
    if "name" not in named or not all("=" in word for word in words):
        raise ConfigError(f"--source {' '.join(words)}: give name=... and the source's arguments as key=value")
    settings: Settings = compose([f"data.source.{word}" for word in words])["data"]["source"]
    return {key: value for key, value in settings.items() if key in named}


def _from_path(path: Path, result: "RunResult") -> Settings:
    from fedimb import registry
    from fedimb.errors import ConfigError, DataError, nearest

    if not path.exists():
        raise DataError(f"{path} does not exist; give a file, a folder, or data=... settings")
    suffix = "" if path.is_dir() else path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _from_yaml(path)
    if suffix not in BY_SUFFIX:
        known = nearest(suffix, [s for s in BY_SUFFIX if s])
        raise ConfigError(f"{path}: no source is known for '{suffix}' files; give --source name=... key=....{known}")
    trained = dict(_config(result)["data"]["source"])
    name = trained["name"] if trained["name"] in BY_SUFFIX[suffix] else BY_SUFFIX[suffix][0]
    argument = next((n for n in registry.parameters("source", name) if n in _PATHS), None)
    if argument is None:
        raise ConfigError(f"{path}: source '{name}' takes no path; give --source name=... key=...")
    kept = trained if trained["name"] == name else {"name": name}
    given = str(path.absolute())  # a relative one would count from FEDIMB_DATA_DIR
    return kept | {argument: [given] if isinstance(kept.get(argument), list) else given}


def _config(result: "RunResult") -> Settings:
    from fedimb.rundir.folder import RunFolder

    config: Settings = RunFolder.open(result.folder).read_json("config.json")
    return config


def _from_yaml(path: Path) -> dict[str, object]:
    import yaml

    from fedimb.errors import ConfigError

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if isinstance(content, dict) and isinstance(content.get("data"), dict):
        content = content["data"]  # one that chooses a model too, as configs/data/cifar10.yaml
    found = content.get("source", content) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise ConfigError(f"{path} names no source: write source: {{name: npz, path: new.npz}}")
    return found
