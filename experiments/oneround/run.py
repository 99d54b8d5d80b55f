"""Is one times the correction for short samples the right amount? Twenty-odd data sets, as registered.yaml says.

    python experiments/oneround/run.py --dry-run       # the cells and about how long they take
    python experiments/oneround/run.py                 # all cells that rows.csv lacks, then the table and the claims
    python experiments/oneround/run.py --only glass    # the cells of one set

The data lie below $FEDIMB_DATA_DIR. A cell (set, features, tail, seed) is written as it ends; a run that was stopped
goes on where it was. Nothing is trained: sums are added up once per cell and all arms are computed from them.
"""

import csv
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from arms import Arm, Study, abcrlda, arms, gamma_of, log_losses, of_amount, sums_of
from claims import publish_all
from simulate import simulate

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.federation import Federation
from fedimb.data.longtail import class_ranks, keep_rows, minority_classes, target_counts
from fedimb.data.prepare import prepare_unsettled
from fedimb.data.quotas import largest_remainder
from fedimb.data.scaling import Scaling, federated_scaling
from fedimb.data.views import to_tensors
from fedimb.discriminant import heads
from fedimb.discriminant.estimates import within_of
from fedimb.discriminant.leave_one_out import GRID
from fedimb.discriminant.statistics import (
    Floats,
    Integers,
    Statistics,
    Units,
    class_sums,
    scale_of,
    squared_length,
    symmetric,
)
from fedimb.encoders.embed import embed, open_encoder
from fedimb.encoders.random_features import RandomFeatures
from fedimb.errors import DataError
from fedimb.privacy.gaussian import sigma_of
from fedimb.privacy.secure_sum import mask_values, unmasked_sum
from fedimb.seeds import Stream, numpy_rng
from fedimb.study.experiments import arguments, parser_of

HERE = Path(__file__).parent
REGISTERED = yaml.safe_load((HERE / "registered.yaml").read_text(encoding="utf-8"))
ROWS, CELLS, BARS = "rows.csv", "cells.csv", "bars.csv"
OFFICIAL = ("nsl_kdd", "thyroid", "fashion_mnist", "mnist", "pneumonia_tail", "cifar10")
"""Sets whose test part is official: the same rows for every seed."""
BALANCED = ("fashion_mnist", "mnist", "digits", "cifar10")
WORDS = {"wbc": ["data.source.size=[16,16]"], "wbc lite0": ["data.source.size=[96,96]"]}
NOISED_UP_TO = 400
"""Features: at 784 the noise of the matrix's 300,000 values drowns the head, and the five decompositions take long."""
KEY = ("set", "features", "tail", "seed")
Line = dict[str, object]


@dataclass(frozen=True)
class Cell:
    """One set of rows that all arms are computed from."""

    set: str
    kind: str
    features: str
    tail: str
    seed: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.set, self.features, self.tail, str(self.seed)


def cells() -> Iterator[Cell]:
    """The registered cells, cheap ones first; whether a cut leaves every class rows is seen when the data are read."""
    kinds = dict.fromkeys(REGISTERED["sets"]["tables"], "tables")
    kinds |= dict.fromkeys(REGISTERED["sets"]["images"], "images") | dict.fromkeys(REGISTERED["seen"], "seen")
    for features in ("raw", "random", "lite0"):
        for name, kind in kinds.items():
            pictures = kind == "images" or name == "cifar10"
            if (features == "lite0" and not pictures) or (features == "raw" and name == "cifar10"):
                continue
            tails = ("cut",) if name in BALANCED else ("found", "cut")
            for seed in REGISTERED["seeds"]:
                for tail in tails:
                    yield Cell(name, kind, features, tail, seed)


SECONDS = {"raw": 2.0, "random": 3.0, "lite0": 8.0}
"""Of one cell, about."""


@lru_cache(maxsize=2)
def prepared(name: str, features: str, seed: int) -> Federation:
    """The set, split as its YAML says, with the tail as found and all training rows at one client."""
    words = [f"data={name}", "data.long_tail=natural", *WORDS.get(f"{name} {features}", WORDS.get(name, []))]
    if name == "heart_severe":
        words.append(f"data.test.fold={seed}")
    config = validate(compose(words))
    return prepare_unsettled(config.data, {"name": "iid"}, 1, seed)[0]


def training_rows(cell: Cell, federation: Federation) -> Integers | None:
    """Rows of the store for training, sorted; None: this cell is not made."""
    y, seed = np.asarray(federation.store.y), cell.seed
    held = np.asarray(federation.train[0])
    available = np.bincount(y[held], minlength=federation.n_classes)
    natural = available.max() >= REGISTERED["found_from"] * available.min()
    if cell.tail == "cut":
        ranks = np.empty(len(available), np.int64)
        ranks[np.argsort(-available, kind="stable")] = np.arange(len(available))
        if not natural:
            ranks = class_ranks(len(available), "seeded", numpy_rng(seed, Stream.TAIL, 0))
        wanted = partial(target_counts, available, "exponential", REGISTERED["imbalance_factor"], ranks=ranks)
        try:
            counts = wanted(n_max=None, class_names=federation.class_names)
            if counts.max() > REGISTERED["n_max"]:
                counts = wanted(n_max=REGISTERED["n_max"], class_names=federation.class_names)
        except DataError:
            return None
    elif not natural:
        return None
    else:
        share = REGISTERED["official_share"] if cell.set in OFFICIAL else 1.0
        most = min(REGISTERED["training_rows"], int(share * len(held)))
        counts = available
        if len(held) > most:
            counts = np.minimum(available, np.maximum(largest_remainder(available / available.sum(), most), 2))
    return keep_rows(held, y, counts, numpy_rng(seed, Stream.TAIL, 1))


def test_rows(cell: Cell, federation: Federation) -> Integers:
    """Rows of the store for scoring, sorted: at most so many of each class."""
    y = np.asarray(federation.store.y)
    most = REGISTERED["test_rows_of_a_class"]["tables" if cell.kind == "tables" else "images"]
    available = np.bincount(y[federation.test], minlength=federation.n_classes)
    rng = numpy_rng(0 if cell.set in OFFICIAL else cell.seed, Stream.SPLIT, 9)
    return keep_rows(np.asarray(federation.test), y, np.minimum(available, most), rng)


_EMBEDDED: dict[str, dict[int, Floats]] = {}


def features_of(cell: Cell, federation: Federation, rows: Integers, scaling: Scaling | None) -> Floats:
    """[n, d] float64."""
    store = federation.store
    if cell.features == "lite0":
        known = _EMBEDDED.setdefault(cell.set, {})
        if missing := [row for row in rows.tolist() if row not in known]:
            found = embed(open_encoder({"name": "lite0"}, store), store, np.array(missing)).numpy().astype(np.float64)
            known.update(zip(missing, found, strict=True))
        return np.stack([known[row] for row in rows.tolist()])
    x = to_tensors(store, rows, scaling)[0]
    if cell.features == "random":
        dims = min(4 * math.prod(store.input_shape), REGISTERED["random_features_at_most"])
        x = RandomFeatures(dims=dims, seed=cell.seed, input_shape=store.input_shape).encode(x)
    return x.flatten(1).numpy().astype(np.float64)


@dataclass(frozen=True, eq=False)
class Scored:
    """The test rows of a cell: features [n, d], labels [n], the classes that count as rare."""

    x: Floats
    y: Integers
    minority: tuple[int, ...]

    def line(self, arm: str, scores: Floats, shrinkage: float, temperature: float = 1.0, tau: object = "") -> Line:
        """What scores [n, C] are worth."""
        classes = np.unique(self.y)
        hits = scores.argmax(axis=1) == self.y
        recall = {c: float(hits[self.y == c].mean()) for c in classes.tolist()}
        rare = [recall[c] for c in self.minority if c in recall]
        return {
            "arm": arm,
            "shrinkage": shrinkage,
            "tau": tau,
            "macro_recall": np.mean(list(recall.values())),
            "minority_recall": np.mean(rare) if rare else math.nan,
            "log_loss": self._loss(scores, classes),
            "log_loss_tempered": self._loss(scores / temperature, classes),
            "accuracy": hits.mean(),
        }

    def _loss(self, scores: Floats, classes: Integers) -> float:
        known = np.isfinite(scores[np.arange(len(self.y)), self.y])
        if not known.all():  # a class that is left out has no probability
            return math.nan
        losses = log_losses(scores, self.y)
        return float(np.mean([losses[self.y == c].mean() for c in classes.tolist()]))


def all_arms(study: Study, scored: Scored) -> Iterator[Line]:
    """The registered arms and controls."""
    made = []
    for arm in arms(REGISTERED["arms"]["c"], REGISTERED["controls"]["tau"]):
        found = study.choose(arm)
        scores = study.scores(arm, found.shrinkage, scored.x)
        line = scored.line(arm.name, scores, found.shrinkage, found.temperature, "" if arm.tau is None else arm.tau)
        if arm.tau is None:
            yield line
        else:
            made.append((found.log_loss, line))
    yield {**min(made, key=lambda one: one[0])[1], "arm": "tau"}  # of equal ones the smaller tau
    yield {**max((line for _, line in made), key=lambda one: one["macro_recall"]), "arm": "tau_test"}


def floored(cell: Cell, x: Floats, y: Integers, classes: int, scored: Scored) -> Iterator[Line]:
    """The head without the classes below the usual floor."""
    least = REGISTERED["costs"]["floors"][1]
    counts = np.bincount(y, minlength=classes)
    kept = np.flatnonzero(counts >= least).tolist()
    if cell.features != "raw" or not 2 <= len(kept) < classes:
        return
    inside = np.isin(y, kept)
    study = Study(sums_of(x[inside], y[inside], classes, kept), x[inside], y[inside])
    for c in (0, 1):
        arm = Arm(f"c={c} floor {least}", of_amount(c))
        found = study.choose(arm)
        yield scored.line(arm.name, study.scores(arm, found.shrinkage, scored.x), found.shrinkage)


def noised(cell: Cell, x: Floats, y: Integers, classes: int, scored: Scored) -> Iterator[Line]:
    """The head from sums with noise, as strategy=oneround with epsilon adds it; a = .5 for all, also without noise."""
    if cell.features != "raw" or len(x) < REGISTERED["costs"]["min_rows"] or x.shape[1] > NOISED_UP_TO:
        return
    length = np.linalg.norm(x, axis=1)
    clip = float(np.median(length))
    cut = x / np.maximum(length, clip)[:, None]
    counts, sums = np.bincount(y, minlength=classes).astype(np.float64), np.zeros((classes, x.shape[1]))
    np.add.at(sums, y, cut)
    triangle = (cut.T @ cut)[np.triu_indices(x.shape[1])]
    exact = np.concatenate([counts, sums.ravel(), triangle])
    for k, epsilon in enumerate([None, *REGISTERED["costs"]["epsilon"]]):
        sigma = 0.0 if epsilon is None else sigma_of(epsilon, 1e-5, math.sqrt(3))
        values = exact + sigma * numpy_rng(cell.seed, Stream.STATISTICS_NOISE, k).normal(size=len(exact))
        n, made = np.split(values, [classes])
        kept = np.where(n >= 1, n, 0.0)
        if (kept > 0).sum() < 2:
            continue
        sums, second = made[: sums.size].reshape(sums.shape) * clip, symmetric(made[sums.size :], x.shape[1]) * clip**2
        held, ids = Statistics(kept, sums, None, second).in_order()
        within, even = within_of(held), np.zeros(len(ids))
        for c in (0, 1):
            head = heads.lda(held, 0.5, even, bool(c), within, sigma * clip).spread(ids, classes)
            name = "clipped" if epsilon is None else f"epsilon {epsilon}"
            yield scored.line(f"c={c} {name}", head(scored.x), 0.5)


def two_classes(cell: Cell, x: Floats, y: Integers, scored: Scored) -> Iterator[Line]:
    """abcrlda beside c = 0 and 1, on the most frequent and the rarest class."""
    counts = np.bincount(y)
    pair = [int(counts.argmax()), int(len(counts) - 1 - counts[::-1].argmin())]
    if cell.features != "raw" or (cell.tail == "cut" and len(counts) > 2):
        return
    if not all((scored.y == c).any() for c in pair) or counts[pair].sum() < 4:
        return
    inside, tested = np.isin(y, pair), np.isin(scored.y, pair)
    x, y = x[inside], (y[inside] == pair[1]).astype(np.int64)
    ours = Scored(scored.x[tested], (scored.y[tested] == pair[1]).astype(np.int64), (1,))
    statistics = sums_of(x, y, 2)
    study = Study(statistics, x, y)
    for c in (0, 1):
        arm = Arm(f"pair c={c}", of_amount(c))
        found = study.choose(arm)
        yield ours.line(arm.name, study.scores(arm, found.shrinkage, ours.x), found.shrinkage, found.temperature)
    within = within_of(statistics)
    made = [(abcrlda(statistics, gamma_of(within, a), within), a) for a in GRID]
    best, a = min(made, key=lambda one: one[0].risk)
    score = (ours.x @ best.weight + best.bias) * gamma_of(within, a)
    yield ours.line("pair abcrlda", np.column_stack([score, np.zeros(len(score))]), a)


def facts(study: Study, x: Floats, y: Integers, scored: Scored, shrinkage: float) -> Line:
    """What the effect may go with."""
    counts = np.bincount(y, minlength=study.n_classes)
    residual = x - np.stack([x[y == c].mean(0) if counts[c] else x[0] * 0 for c in range(study.n_classes)])[y]
    variance = np.square(residual).mean(0)
    varies = variance > 1e-9 * variance.mean()
    fourth = (residual[:, varies] ** 4).mean(0) / variance[varies] ** 2 - 3
    width, _ = study.width(shrinkage)
    spectrum = study.within.shrunk(shrinkage)
    seen, said = 0.0, 0.0
    for c in scored.minority:
        own = scored.x[scored.y == c] @ study.within.basis
        if len(own) > 1 and counts[c]:
            seen += float((own.var(axis=0, ddof=1) / spectrum).sum()) / counts[c]
            said += width / counts[c]
    return {
        "d": x.shape[1],
        "n": len(x),
        "classes": study.n_classes,
        "rarest": int(counts[counts > 0].min()),
        "imbalance_factor": counts.max() / counts[counts > 0].min(),
        "test_rows": len(scored.y),
        "d_eff": width,
        "kurtosis": float(np.median(fourth)),
        "rare_spread": seen / said if said else math.nan,
    }


def dealt_alike(cell: Cell, x: Floats, y: Integers, classes: int) -> object:
    """Whether sums of ten clients, masked and open, are those of all rows, bit by bit; empty where not looked at."""
    if cell.seed or cell.features != "raw":
        return ""
    units = Units.of(squared_length(scale_of(x), len(x)), len(x))
    sums = partial(class_sums, classes=classes, kept=range(classes), units=units, wanted=("squares", "second"))
    whole = sums(x, y)
    client = numpy_rng(cell.seed, Stream.PARTITION).integers(0, 10, len(x))
    parts = [sums(x[client == k], y[client == k]) for k in range(10)]

    def shared(low: int, high: int, n: int) -> np.ndarray:
        return np.random.default_rng([low, high]).integers(0, 2**64, size=n, dtype=np.uint64)

    alike = True
    for name, value in whole.items():
        one = [part[name].ravel() for part in parts]
        sent = np.stack([mask_values(v, client=k, clients=range(10), shared=shared) for k, v in enumerate(one)])
        alike &= np.array_equal(unmasked_sum(sent), value.ravel()) and np.array_equal(sum(one), value.ravel())
    return alike


def run_cell(cell: Cell) -> tuple[list[Line], Line]:
    """Lines of every arm, and the cell's facts; no lines: the cell is not made."""
    started = time.process_time()
    federation = prepared(cell.set, cell.features if cell.features == "lite0" else "raw", cell.seed)
    train, test = training_rows(cell, federation), test_rows(cell, federation)
    named = dict(zip(KEY, cell.key, strict=True)) | {"kind": cell.kind}
    if train is None:
        return [], named | {"made": "no"}
    store = federation.store
    y, classes = np.asarray(store.y, np.int64), federation.n_classes
    scaling = None if store.scaled is None else federated_scaling([store.x[train]], store.scaled)
    x = features_of(cell, federation, train, scaling)
    minority = minority_classes(np.bincount(y[train], minlength=classes), "rarest_30pct", federation.class_names)
    scored = Scored(features_of(cell, federation, test, scaling), y[test], minority)
    own = y[train]
    study = Study(sums_of(x, own, classes), x, own)
    lines = list(all_arms(study, scored))
    for more in (floored(cell, x, own, classes, scored), noised(cell, x, own, classes, scored)):
        lines += more
    lines += two_classes(cell, x, own, scored)
    (shrinkage,) = [float(str(line["shrinkage"])) for line in lines if line["arm"] == "c=1"]
    about = named | {"made": "yes"} | facts(study, x, own, scored, shrinkage)
    about |= {"sums_equal": dealt_alike(cell, x, own, classes), "cpu_seconds": time.process_time() - started}
    return [named | line for line in lines], about


DIGITS = ["data=digits", "data.n_max=110"]
DEVICES = ["data=digits_devices", "data.n_max=90", "data.imbalance_factor=20", "data.public=30"]
SETTINGS = {
    "digits IF 20": [*DIGITS, "data.imbalance_factor=20"],
    "digits IF 50": [*DIGITS, "data.imbalance_factor=50"],
    "devices": DEVICES,
}
"""Data of experiments/baselines and experiments/fedssg, whose trained rows have 12 seeds."""


def bars(to: Path) -> None:
    """The head on the rows that other pages' trained rows had: bars.csv."""
    lines: list[Line] = []
    for setting, words in SETTINGS.items():
        for seed in range(12):
            config = validate(compose(words))
            federation, _ = prepare_unsettled(config.data, {"name": "iid"}, 1, seed)
            store, rows, classes = federation.store, np.asarray(federation.train[0]), federation.n_classes
            y = np.asarray(store.y, np.int64)
            x = to_tensors(store, rows)[0].flatten(1).numpy().astype(np.float64)
            tested = to_tensors(store, federation.test)[0].flatten(1).numpy().astype(np.float64)
            scored = Scored(tested, y[federation.test], federation.minority)
            for floor in REGISTERED["costs"]["floors"]:
                kept = np.flatnonzero(np.bincount(y[rows], minlength=classes) >= floor).tolist()
                inside = np.isin(y[rows], kept)
                study = Study(sums_of(x[inside], y[rows][inside], classes, kept), x[inside], y[rows][inside])
                for c in (0, 1):
                    arm = Arm(f"c={c}" + (f" floor {floor}" if floor > 1 else ""), of_amount(c))
                    found = study.choose(arm)
                    line = scored.line(arm.name, study.scores(arm, found.shrinkage, scored.x), found.shrinkage)
                    lines.append({"setting": setting, "seed": seed} | line)
    (to / BARS).unlink(missing_ok=True)
    append(to / BARS, lines)


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shown(value: Any) -> object:
    return f"{float(value):.6g}" if isinstance(value, float | np.floating) else value


def append(path: Path, lines: Sequence[Line]) -> None:
    """Add lines; the first ones name the columns."""
    if not lines:
        return
    new = not path.exists()
    columns = list(lines[0]) if new else next(csv.reader(path.open(newline="", encoding="utf-8")))
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows([{key: shown(value) for key, value in line.items()} for line in lines])


def rewrite(path: Path, lines: Sequence[dict[str, str]]) -> None:
    if lines:
        path.unlink()
        append(path, lines)  # type: ignore[arg-type]


def resume(to: Path) -> set[tuple[str, ...]]:
    """The cells that are done; lines of one that was cut off are dropped."""
    done = {tuple(line[key] for key in KEY) for line in read(to / CELLS)}
    rows = read(to / ROWS)
    whole = [line for line in rows if tuple(line[key] for key in KEY) in done]
    if len(whole) < len(rows):
        rewrite(to / ROWS, whole)
    return done


def main() -> None:
    parser = parser_of(__file__, __doc__)
    parser.add_argument("--dry-run", action="store_true", help="say what is left to do and about how long it takes")
    parser.add_argument("--only", help="some sets, as in glass,yeast; in this order")
    parser.add_argument("--features", help="one kind: raw, random or lite0")
    parser.add_argument("--tail", help="found or cut; found includes the cuts of sets without a tail")
    parser.add_argument("--bars", action="store_true", help="only bars.csv, again")
    args = arguments(parser)
    torch.set_num_threads(1)
    done = resume(args.to)
    left = [] if args.bars else [cell for cell in cells() if cell.key not in done]
    left = [cell for cell in left if args.features in (None, cell.features)]
    if args.only is not None:
        asked = args.only.split(",")
        left = sorted((cell for cell in left if cell.set in asked), key=lambda cell: asked.index(cell.set))
    if args.tail is not None:
        left = [cell for cell in left if args.tail == cell.tail or (args.tail == "found" and cell.set in BALANCED)]
    if args.dry_run:
        for features, seconds in SECONDS.items():
            own = sum(cell.features == features for cell in left)
            print(f"{features:7} {own:4} cells, about {own * seconds / 60:.1f} CPU-minutes")
        return
    for at, cell in enumerate(left, 1):
        lines, about = run_cell(cell)
        columns = read(args.to / CELLS)
        if about["made"] == "no":  # the columns are those of a cell that was made
            about |= dict.fromkeys(set(columns[0] if columns else []) - about.keys(), "")
        append(args.to / ROWS, lines)
        append(args.to / CELLS, [about])
        print(f"{at}/{len(left)} {' '.join(cell.key)}: {shown(about.get('cpu_seconds') or 0.0)} s", flush=True)
    if args.bars or not (args.to / BARS).exists():
        bars(args.to)
    if not (args.to / "simulated.csv").exists():
        simulate(args.to)
    publish_all(args.to)


if __name__ == "__main__":
    main()
