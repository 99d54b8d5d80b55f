"""``fedimb predict``: predicts rows with a finished run's model, into a file with a model card."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR, add_trust
from fedimb.plain import Settings

if TYPE_CHECKING:
    from fedimb.cli.output.runs import Predicted
    from fedimb.cli.scoring import Options, Scored
    from fedimb.cli.verbs import Verbs
    from fedimb.rundir.result import RunResult

_ABOUT = """\
Predict rows, with or without labels, with the model of a finished run. Writes one line per row (predicted class, a
score per class, and the true label where it is known), and a model card, FILE.card.md: what the model was trained on
and how reliable it is, class by class.

  fedimb predict fedavg-s0 --out test.csv                       the run's own test set
  fedimb predict fedavg-s0 new.csv --id patient --out said.csv  a table: .csv or .parquet, columns found by name
  fedimb predict fedavg-s0 new.npz --out new.parquet            x, and ids and y where known
  fedimb predict fedavg-s0 scans/ --out scans.json              pictures in a folder or .zip, or one picture
  fedimb predict fedavg-s0 film.dcm --out film.csv              one DICOM file, or a folder of them
  fedimb predict fedavg-s0 new.yaml --out new.csv               a data YAML (source: {name: ..., ...})
  fedimb predict fedavg-s0 data=digits --out all.csv            settings as for `fedimb run`
  fedimb predict fedavg-s0 --source name=npz path=new.npz --out new.csv
  fedimb predict la_post-s0 new.npz --calibration la_post --out new.csv
  fedimb predict fedavg-s0 new.npz --abstain-below 0.8 --out new.csv
  fedimb predict fedavg-s0 new.npz --recall 0.9 --class melanoma --out new.csv

A file of the kind the run was trained on is read with the run's settings (column names, image size) and must be like
the training data: the same columns in any order, the same image size, the same range of values. If not, it is refused.
Labels are not needed; where there are any, their classes must be the run's. Scores are the softmax of the calibrated
logits. If rows have several labels, scores are one sigmoid per class, and the classes above 0.5 are predicted, or above
the thresholds that --best-f1 or --recall choose on the run's validation rows."""


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
        "--out",
        required=True,
        metavar="FILE",
        help="file to write: .csv, .parquet, .json or .jsonl; the model card goes to FILE.card.md",
    )
    predict.add_argument(
        "--site", metavar="NAME", help="whose model, if sites have their own: a site, client-3, or a kind of network"
    )
    predict.add_argument("--calibration", metavar="NAME", help="one of the run's calibrations (default: its first)")
    predict.add_argument(
        "--probabilities", action="store_true", help="also write the model's own probabilities, before calibration"
    )
    predict.add_argument("--id", metavar="COLUMN", help="a table's column of row ids, written as `id`")
    predict.add_argument("--drop", nargs="+", default=[], metavar="COLUMN", help="columns of a table to leave out")
    predict.add_argument(
        "--on-bad", choices=("refuse", "skip"), default="refuse", help="rows that cannot be read (default: refuse)"
    )
    rules = predict.add_argument_group("how classes follow from scores (default: the highest score)")
    rules.add_argument("--abstain-below", type=float, metavar="P", help="predict no class if no score reaches P")
    rules.add_argument(
        "--recall", type=float, metavar="R", help="choose thresholds so that each class is found in R of its rows"
    )
    rules.add_argument(
        "--best-f1", action="store_true", help="choose thresholds with the best F1, if rows have several labels"
    )
    rules.add_argument(
        "--class", dest="classes", action="append", default=[], metavar="NAME", help="only for this class; repeatable"
    )
    rules.add_argument(
        "--choose-on",
        metavar="DATA",
        help="labelled data to choose on (default: the run's validation rows; never its test set)",
    )
    rules.add_argument(
        "--transitions",
        metavar="FILE",
        help="rows are frames in order: the most probable sequence, under a CSV of which class may follow which",
    )
    rules.add_argument(
        "--sequence",
        metavar="REGEX",
        help="what of a row's id names the sequence it belongs to, as in '^([^/]+)/' (default: all rows are one)",
    )
    predict.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    add_trust(predict)
    predict.set_defaults(handler=predict_command)


def predict_command(args: argparse.Namespace) -> "Predicted":
    """``fedimb predict``."""
    import sys
    from dataclasses import replace

    from fedimb.atomic import write_atomic
    from fedimb.cli.card import model_card
    from fedimb.cli.find import find_run
    from fedimb.cli.output.runs import Predicted
    from fedimb.cli.scoring import score_to
    from fedimb.registry.targets import trusted
    from fedimb.rundir.result import RunResult

    out = Path(args.out).expanduser()
    result = replace(RunResult.read(find_run(args.run, args.output_dir)), site=args.site)
    with trusted(args.trust):
        source, options = source_of(args.data, args.source, result), _options(args, result)
        words = [*args.data, *([args.transitions] if args.transitions else [])]
        _refuse_overwriting(out, result.folder, words, source, options.choose_on, result.model.origin.source)
        scored = score_to(result, source, out, options)
    card = _card(out)
    write_atomic(card, model_card(result, scored).encode())
    from fedimb.rundir.folder import RunFolder

    note = RunFolder.open(result.folder).not_sealed()
    warnings = [*scored.warnings, *([note] if note else [])]
    for warning in warnings:
        print(f"fedimb: {warning}", file=sys.stderr)
    print(f"{scored.rows:,} rows: {out}\nmodel card: {card}")
    _say_rule(scored, result)
    return Predicted(
        folder=str(result.folder),
        rows=scored.rows,
        out=str(out),
        card=str(card),
        abstained=scored.abstained,
        thresholds=_thresholds(scored, result),
        scores=dict(_say_how_well(scored, result)),
        warnings=warnings,
    )


def _thresholds(scored: "Scored", result: "RunResult") -> dict[str, float | None] | None:
    if scored.chosen is None:
        return None
    return {result.class_names[one.class_id]: one.value for one in scored.chosen.achieved}


def _options(args: argparse.Namespace, result: "RunResult") -> "Options":
    from fedimb.cli.scoring import Options

    return Options(
        calibration=args.calibration,
        abstain_below=args.abstain_below,
        recall=args.recall,
        best_f1=args.best_f1,
        classes=tuple(args.classes),
        choose_on=None if args.choose_on is None else source_of([args.choose_on], None, result),
        id_column=args.id,
        ignored=tuple(args.drop),
        on_bad=args.on_bad,
        probabilities=args.probabilities,
        transitions=None if args.transitions is None else Path(args.transitions).expanduser(),
        sequence=args.sequence,
    )


def _card(out: Path) -> Path:
    """Where the model card of the predictions in ``out`` is."""
    return out.with_name(out.name + ".card.md")


def _refuse_overwriting(out: Path, folder: Path, words: list[str], *sources: Settings | None) -> None:
    """Refuse an existing ``out`` that the words or a source name, or that belongs to the run in ``folder``."""
    from fedimb.errors import ConfigError

    for text in (*words, *_texts(sources)):
        given = Path(text).expanduser()
        if out.exists() and given.exists() and out.samefile(given):
            raise ConfigError(f"--out {out} is a file of data: give another one")
    if out.exists() and out.resolve().is_relative_to(folder.resolve()) and not _card(out).exists():
        raise ConfigError(f"--out {out} is a file of the run: give another one")


def _texts(value: object) -> Iterator[str]:
    """All text in nested settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


def _say_rule(scored: "Scored", result: "RunResult") -> None:
    from fedimb.cli.card import threshold_line

    if scored.chosen is not None:
        print(f"thresholds for {scored.chosen.aim}, chosen on {scored.chosen.chosen_on}, where they reach:")
        for one in scored.chosen.achieved:
            print(f"  {threshold_line(one, result.class_names)}")
    if scored.abstain_below is not None or scored.abstained:
        limit = "" if scored.abstain_below is None else f" (highest score below {scored.abstain_below:g})"
        print(f"no class predicted for {scored.abstained:,} of {scored.rows:,} rows{limit}")


def _say_how_well(scored: "Scored", result: "RunResult") -> dict[str, float]:
    """Print the scores against the labels, if there are any, and return them."""
    from fedimb.evaluation.metrics import scores

    found: dict[str, float] = {}
    if scored.confusion is not None:
        found = scores(scored.confusion, result.minority)
        shown = [
            f"{name.replace('_', ' ')} {'n/a' if found[name] != found[name] else format(found[name], '.3f')}"
            for name in ("macro_recall", "minority_recall", "macro_specificity", "accuracy")
            if name in found
        ]
        decided = " of the rows with a predicted class" if scored.abstained else ""
        print(f"against the labels{decided}: {', '.join(shown)}")
    return found


def source_of(words: list[str], source: list[str] | None, result: "RunResult") -> Settings | None:
    """The source given by DATA or --source, for `fedimb.data.store.open_source`; None: the run's test set.

    Raises:
        ConfigError: both given, a word that is neither a path nor a setting, a setting that predictions do not use, or
            a YAML without a source.
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

        _refuse_settings([word.partition("=")[0].lstrip("+") for word in words])

        chosen: Settings = compose(words)["data"]["source"]
        return chosen
    if len(words) > 1:
        raise ConfigError(f"cannot use {' '.join(words)}: give one file or folder, or data=... settings")
    return _from_path(Path(words[0]).expanduser(), result)


def _refuse_settings(keys: Sequence[str]) -> None:
    """Refuse settings that would be read and have no effect. Raises ConfigError."""
    from fedimb.errors import ConfigError

    for key in keys:
        if key == "data.subgroups":
            raise ConfigError(
                "data.subgroups: predictions are not scored by subgroup, as nothing would hide small cells: leave it "
                "out (docs/subgroups.md)"
            )
        if key not in ("data", "data.source") and not key.startswith("data.source."):
            raise ConfigError(
                f"{key} has no effect on predictions, which are of all rows: give data=NAME and data.source.*"
            )


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
    if path.exists() and path.suffix.lower() in (".yaml", ".yml"):
        return _from_yaml(path)
    from fedimb.rundir.new_data import source_for

    origin = result.model.origin
    return source_for(path, origin.source, origin.inputs)


def _from_yaml(path: Path) -> dict[str, object]:
    import yaml

    from fedimb.errors import ConfigError
    from fedimb.strict_yaml import load_yaml

    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if isinstance(content, dict) and isinstance(content.get("data"), dict):
        content = content["data"]  # one that chooses a model too, as configs/data/cifar10.yaml
    if isinstance(content, dict) and content.get("subgroups"):
        _refuse_settings(["data.subgroups"])
    found = content.get("source", content) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise ConfigError(f"{path} names no source: write source: {{name: npz, path: new.npz}}")
    return found
