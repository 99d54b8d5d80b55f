"""Scores on the clients' validation rows at the end, if the server has no test rows (``data.test={name: none}``).

Each client sends the final model's confusion matrix on its validation view, one per calibration; all scores are
computed from their sum. During the run, ``client/*`` are the same for the model at the start of each round. With
``evaluation.secure`` those are not sent, and the final matrices are masked, with masks that cancel in the sum over all
clients (`fedimb.privacy.secure_sum`): nobody can read the matrix of one client.
"""

import logging
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.data.subgroups import SITE, parse_subgroups
from fedimb.engine.admission import check_total
from fedimb.errors import ConfigError, RunFailed
from fedimb.evaluation.subgroups import SCORED, SHARED, UNIT, SiteCells, SubgroupCounts, sum_counts
from fedimb.records import array_record, arrays_of
from fedimb.schema import RunConfig
from fedimb.serverapp.influence import capped, capped_counts
from fedimb.serverapp.masked_sum import masked_sum
from fedimb.serverapp.steps import Query, Step

if TYPE_CHECKING:
    from fedimb.serverapp.context import RunContext

log = logging.getLogger("fedimb")

NOBODY_TRAINED = (
    "no site that has rows to score on has trained its model, so there are no scores; run more rounds, or take more "
    "clients a round (clients.participation)"
)


@dataclass
class ClientScores:
    """What the clients' validation rows say of the final model.

    Attributes:
        total: calibration name -> confusion matrix [C, C] int64 over all clients.
        by_client: calibration name -> the matrix of each client by client id; empty if they are masked.
        subgroups: calibration name -> counts by subgroup over all clients; empty unless ``data.subgroups`` is set.
        cells: of each client in ``by_client``; None if they are masked, or there are no subgroups.
        without: clients whose counts by subgroup were withheld or do not fit their matrix.
        untrained: clients whose model was never trained, and counts for nothing.
        untrained_rows: validation rows of such clients; where matrices are masked, all that is known of them.
    """

    total: dict[str, np.ndarray]
    by_client: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    subgroups: dict[str, SubgroupCounts] = field(default_factory=dict)
    cells: SiteCells | None = None
    without: tuple[int, ...] = ()
    untrained: tuple[int, ...] = ()
    untrained_rows: int = 0


def check_scores(config: RunConfig, task: str, unknown: str | None = None) -> None:
    """Refuse a run that cannot be scored. Raises ConfigError.

    Args:
        unknown: unknown labels that reach the clients (`Federation.unknown_labels`).
    """
    if unknown is not None and config.evaluation.temperature:
        raise ConfigError(
            "evaluation.temperature=true sums losses of validation rows by their class, and some of these labels are "
            "unknown; leave it out"
        )
    if unknown is not None and config.data.get("subgroups") and config.data["test"]["name"] == "none":
        raise ConfigError(
            "data.subgroups with data.test={name: none} scores clients' validation rows by their class, and some of "
            "these labels are unknown; use another data.test, or leave data.subgroups out"
        )
    if config.data.get("subgroups") and (config.clients.private or config.clients.models is not None):
        key = "clients.models" if config.clients.models is not None else "clients.private"
        raise ConfigError(
            f"data.subgroups scores one model that all clients share, which {key} leaves none of; leave one of them out"
        )
    if task != "multiclass" and config.data.get("subgroups"):
        raise ConfigError("data.subgroups needs one class per row, but these rows have several labels; leave it out")
    if config.data["test"]["name"] != "none":
        return
    if not config.data.get("validation"):
        raise ConfigError(
            "data.test={name: none} leaves scoring to the clients' validation rows: set e.g. data.validation=0.2"
        )
    if task != "multiclass":
        raise ConfigError(
            "data.test={name: none} needs one class per row, but these rows have several labels; use another data.test"
        )
    if config.evaluation.secure and any(one.column == SITE for one in parse_subgroups(config.data.get("subgroups"))):
        raise ConfigError(
            "data.subgroups names 'site' and evaluation.secure=true hides each site's figures in the sum: the sum by "
            "site is each site's figures; leave out one of them"
        )
    if config.evaluation.secure and config.clients.count < 2:
        raise ConfigError("evaluation.secure=true hides nothing with one client: its sum is that client's matrix")


def gather_scores(
    context: "RunContext",
    config: RunConfig,
    federation: Federation,
    taus: Mapping[str, float] | None = None,
    idle: Sequence[int] = (),
) -> Generator[Step, Any, ClientScores]:
    """Sub-program: score the final model on the clients' validation rows.

    A client above ``clients.max_weight_share`` of all rows counts with that share.

    Args:
        taus: the numbers found for calibrations whose tau is a rule, by calibration.
        idle: clients of a network that nobody has trained.

    Raises:
        RunFailed: no client has a trained model, or a masked sum would hold the scores of a network nobody trained.
    """
    content = RecordDict()
    if context.counts is not None:
        content[names.PRIOR] = array_record({"counts": np.asarray(context.counts)})
    if taus:
        content[names.TAUS] = ConfigRecord(dict(taus))
    if idle and config.evaluation.secure:
        raise RunFailed(
            f"the network of {len(idle)} clients was trained by none of them, and evaluation.secure=true hides their "
            "matrices in the sum; run more rounds, or take more clients a round (clients.participation)"
        )
    if not config.evaluation.secure:
        replies = yield Query(names.SCORED, content, model=context.final)
        lying = set(context.attackers)  # of a simulated attack: their scores judge nothing
        found = {r.client: arrays_of(r.content, names.SCORES) for r in replies if r.client not in lying}
        untrained = _untrained(found, idle, config, federation)
        found = {client: one for client, one in found.items() if client not in untrained}
        own = {name: {client: one[name] for client, one in found.items()} for name in config.calibration}
        sums = {}
        for name, matrices in own.items():
            sums[name] = capped_counts(np.stack(list(matrices.values())), config.clients.max_weight_share).sum(axis=0)
        scores = ClientScores(sums, own)
        scores.untrained, scores.untrained_rows = untrained, int(federation.validation.sizes[list(untrained)].sum())
        if config.data.get("subgroups"):
            sent = {r.client: arrays_of(r.content, names.SUBGROUPS) for r in replies if names.SUBGROUPS in r.content}
            _sum_subgroups(scores, sent, config)
        return scores
    clients = [int(client) for client in np.flatnonzero(federation.train_sizes)]
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}

    def figures(content: RecordDict) -> np.ndarray:
        arrays = _masked_arrays(content, config)
        shapes.update({name: array.shape for name, array in arrays.items()})
        return np.concatenate([array.ravel() for array in arrays.values()])

    query = Query(names.MASKED_SCORES, content, model=context.final)
    total, summed = yield from masked_sum(query, "validation", clients, federation, context, figures)
    parts = np.split(total, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    opened = {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
    _check_totals(opened, len(summed), float(federation.validation.sizes[summed].sum()))
    scores = ClientScores({name: opened[names.SCORES, name] for name in config.calibration})
    if config.clients.private and federation.unknown_labels is None:  # rows of unknown class are counted by nobody
        counted_rows = int(next(iter(scores.total.values())).sum())
        scores.untrained_rows = int(federation.validation.sizes[summed].sum()) - counted_rows
        if not counted_rows:
            raise RunFailed(NOBODY_TRAINED)
    if config.data.get("subgroups"):
        counted = {name: array for (record, name), array in opened.items() if record == names.SUBGROUPS}
        scores.subgroups = {name: _counts_of(counted, name) for name in config.calibration}
    return scores


def _untrained(
    found: Mapping[int, Mapping[str, np.ndarray]], idle: Sequence[int], config: RunConfig, federation: Federation
) -> tuple[int, ...]:
    """Clients that have validation rows and counted none of them, as their own part was never trained, or are idle.

    Raises:
        RunFailed: no other has counted a row.
    """
    held, private = federation.validation.sizes, bool(config.clients.private)
    empty = [k for k, one in found.items() if private and held[k] and not any(m.any() for m in one.values())]
    untrained = tuple(sorted({*empty, *(k for k in found if k in set(idle))}))
    if untrained and not any(m.any() for k, one in found.items() if k not in untrained for m in one.values()):
        raise RunFailed(NOBODY_TRAINED)
    return untrained


def _masked_arrays(content: RecordDict, config: RunConfig) -> dict[tuple[str, str], np.ndarray]:
    """The masked arrays of a reply by record and name, in the order in which the client masked them."""
    wanted = {names.SCORES: list(config.calibration)}
    if config.data.get("subgroups"):
        wanted[names.SUBGROUPS] = [*SHARED, *(f"{name}/{what}" for name in config.calibration for what in SCORED)]
    if lacking := wanted.keys() - content.keys():
        raise RunFailed(
            f"{names.MASKED_SCORES}: a client sent no {min(lacking)}, so that the masked sum stays hidden: fix it and "
            "resume"
        )
    return {(record, name): arrays_of(content, record)[name] for record, own in wanted.items() for name in own}


def _check_totals(opened: Mapping[tuple[str, str], np.ndarray], clients: int, held: float) -> None:
    """Refuse sums over ``clients`` clients with ``held`` validation rows that no such rows can have."""
    for (record, name), total in opened.items():
        most = {"hits": held * len(total), "rows": held * len(total), "people": held * len(total)}
        most |= {"squares": 2 * held * UNIT * len(total), "confidence": held * UNIT * len(total)}
        most |= {"together": float(clients * total.size)}
        limit = most.get(name.rpartition("/")[2], held) if record == names.SUBGROUPS else held
        check_total(f"{names.MASKED_SCORES} ({name})", total, limit)


def _counts_of(arrays: Mapping[str, np.ndarray], calibration: str) -> SubgroupCounts:
    own = {name: arrays[name] for name in SHARED} | {name: arrays[f"{calibration}/{name}"] for name in SCORED}
    return SubgroupCounts(**own)


def _sum_subgroups(scores: ClientScores, sent: Mapping[int, Mapping[str, np.ndarray]], config: RunConfig) -> None:
    """Sum the clients' counts by subgroup, those that are there and fit the client's own confusion matrix."""
    share, people = config.clients.max_weight_share, dict[int, np.ndarray]()
    for calibration, matrices in scores.by_client.items():
        rows = np.array([matrix.sum() for matrix in matrices.values()], np.float64)
        limits = capped(rows.tolist(), share)
        kept = []
        for client, row_count, limit in zip(matrices, rows, limits, strict=True):
            if client not in sent or not _fits(sent[client], calibration, matrices[client]):
                continue
            counts = _counts_of(sent[client], calibration)
            if limit < row_count:  # as its matrix is: rounded down
                factor = limit / row_count
                cut = {name: np.floor(getattr(counts, name) * factor).astype(np.int64) for name in ("rows", *SCORED)}
                counts = replace(counts, **cut)
            kept.append(counts)
            people[client] = counts.people
        if kept:
            scores.subgroups[calibration] = sum_counts(kept)
    first = next(iter(scores.by_client.values()))
    if people:
        by_class, by_group = [], []
        for client, matrix in first.items():
            # Of a client without counts nothing is known: as if each class were one person's.
            found = people.get(client)
            by_class.append((matrix.sum(axis=1) > 0).astype(np.int64) if found is None else found[0].sum(axis=-1))
            by_group.append(np.zeros_like(next(iter(people.values()))[:, 0]) if found is None else found.sum(axis=1))
        scores.cells = SiteCells(np.stack(by_class), np.stack(by_group))
    scores.without = tuple(client for client in first if client not in people)
    if scores.without:
        log.warning(
            "scores by subgroup are without %s: not sent (the site's policy), or not the rows of its confusion matrix",
            ", ".join(f"client {client}" for client in scores.without),
        )


def _fits(arrays: Mapping[str, np.ndarray], calibration: str, matrix: np.ndarray) -> bool:
    rows, hits = arrays["rows"], arrays[f"{calibration}/hits"]
    held, found = matrix.sum(axis=1), matrix.diagonal()
    return bool(
        (rows.sum(axis=-1) == held).all()
        and (hits.sum(axis=(-1, -2)) == found).all()
        and (hits.sum(axis=-1) <= rows).all()
        and (arrays["people"] <= rows).all()
    )
