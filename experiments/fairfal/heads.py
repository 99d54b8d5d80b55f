"""Corrected heads on the rows that every rule had labelled, and the temperatures: of the runs of skewed and even.yaml.

    python experiments/fairfal/heads.py --output runs     # the folder of fairfal-skewed and fairfal-even

heads.csv: nearest mean and discriminant analysis of the inputs of the labelled rows of the last cycle, with the mean
correction, shrinkage by leave-one-out and a uniform prior, as ``strategy=oneround`` makes them. Nothing is trained, so
that rules are compared by their labels alone. taus.csv: the temperature of each model on labelled rows and on the pool.
curve.csv: both scores for tau 0 to 4, on test rows: what a tau would have done, none to choose by.

Lines of a cell (data set and setting) are made anew if its run folders are there; those of another stay as they stand.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedimb.clientapp.state import StateStore
from fedimb.data.federation import Federation
from fedimb.data.views import to_tensors
from fedimb.discriminant.pooled import head_of
from fedimb.evaluation.metrics import scores
from fedimb.records import arrays_of
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.stored import read_config, read_federation
from fedimb.schema import RunConfig
from fedimb.study.experiments import arguments, parser_of
from fedimb.study.pages import Line, merge_lines

SCORES = ("macro_recall", "minority_recall")
STUDIES = ("fairfal-skewed", "fairfal-even")
DATA_SETS = {"lite0_cifar10": "cifar10", "lite0_pneumonia": "pneumonia"}
CELL = ("data_set", "setting")
SETTINGS = {0.1: "skewed", 100.0: "even"}


def labelled(folder: RunFolder, federation: Federation) -> np.ndarray:
    """Rows of the store that all clients had labelled in the end, [n] int64.

    Raises:
        ValueError: a client's state is gone.
    """
    store, found = StateStore(folder.path / "clients"), []
    for client in np.flatnonzero(federation.train_sizes).tolist():
        files = sorted((store.root / f"client-{client:06d}").glob("v*.safetensors"))
        if not files:
            raise ValueError(f"{folder.path}: client {client} has no state")
        state = store.load(client, int(files[-1].stem.removeprefix("v")))
        found.append(arrays_of(state, "labels")["rows"].astype(np.int64))
    return np.concatenate(found)


def inputs(federation: Federation, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, d] float64 and labels [n] int64, as the model reads them."""
    x, y = to_tensors(federation.store, rows, federation.scaling)
    return x.flatten(1).numpy().astype(np.float64), y.numpy().astype(np.int64)


def heads_on(federation: Federation, rows: np.ndarray) -> Iterator[Line]:
    """Test scores of both heads at both minimum counts."""
    (x, y), (tested, truth) = inputs(federation, rows), inputs(federation, federation.test)
    classes = federation.n_classes
    for head in ("ncm", "lda"):
        for count in (1, 5):
            guess = head_of(x, y, classes, head, count)(tested).argmax(axis=1)  # type: ignore[arg-type]
            matrix = np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)
            made = scores(matrix, federation.minority)
            yield {"head": head, "min_count": count} | {score: float(made[score]) for score in SCORES}


def place_of(config: RunConfig) -> Line | None:
    """Data set, setting, rule and seed of a run that labels rows; None for another."""
    if set(config.strategy) != {"active"}:
        return None
    query = (config.strategy["active"] or {})["query"]["name"]
    return {
        "data_set": DATA_SETS[Path(config.data["source"]["path"]).stem],
        "setting": SETTINGS[float(config.partition["alpha"])],
        "rule": query,
        "seed": config.seed,
    }


def found_in(path: Path, named: Line) -> tuple[list[Line], list[Line], list[Line]]:
    """Lines of heads.csv and taus.csv, and the points of a curve, of one finished run."""
    folder = RunFolder.open(path)
    federation = read_federation(folder)
    rows = labelled(folder, federation)
    rare = np.isin(np.asarray(federation.store.y)[rows], federation.minority)
    artifacts = path / "artifacts"
    rules = json.loads((artifacts / "temperature.json").read_text())["rules"]
    taus = {rule: float(one["tau"]) for rule, one in rules.items()} | {"labels": len(rows), "rare_labels": rare.sum()}
    with (artifacts / "tau_curve.csv").open(newline="") as file:
        curve = [named | {key: float(line[key]) for key in ("tau", *SCORES)} for line in csv.DictReader(file)]
    return [named | line for line in heads_on(federation, rows)], [named | taus], curve


def mean_curve(points: Sequence[Line]) -> list[Line]:
    """The mean over seeds at every tau."""
    found: dict[tuple[object, ...], list[Line]] = defaultdict(list)
    for point in points:
        found[tuple(point[key] for key in ("data_set", "setting", "rule", "tau"))].append(point)
    return [
        dict(zip(("data_set", "setting", "rule", "tau"), key, strict=True))
        | {"seeds": len(own)}
        | {score: float(np.mean([float(str(one[score])) for one in own])) for score in SCORES}
        for key, own in found.items()
    ]


def main() -> None:
    parser = parser_of(__file__, __doc__)
    parser.set_defaults(output=Path("runs"))
    parser.add_argument("--only", nargs="*", default=list(DATA_SETS.values()), help="data sets, as in cifar10")
    args = arguments(parser)
    lines: tuple[list[Line], list[Line], list[Line]] = [], [], []
    results = [path for name in STUDIES for path in sorted((args.output / name).glob("*/result.json"))]
    for result in results:
        named = place_of(read_config(RunFolder.open(result.parent)))
        if named is None or named["data_set"] not in args.only:
            continue
        for own, more in zip(lines, found_in(result.parent, named), strict=True):
            own += more
    order = ("data_set", "setting", "rule", "seed")
    for own in lines:
        own.sort(key=lambda line: tuple(str(line[key]) for key in order))
    made = {"heads.csv": lines[0], "taus.csv": lines[1], "curve.csv": mean_curve(lines[2])}
    for file, own in made.items():
        merge_lines(args.to / file, own, CELL)


if __name__ == "__main__":
    main()
