"""The result of a finished run: summary metrics per row, confusion matrices, the model."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from fedimb.contracts.platform import EARLIER_PARTS, PART, REPLACED
from fedimb.errors import FedimbError, RunSuspect
from fedimb.notebook import frame, html_table
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import TrainedModel, load_model
from fedimb.rundir.seal import Damaged
from fedimb.text import score

if TYPE_CHECKING:
    from pandas import DataFrame

WITHOUT_SITE = "without_site.json"
"""Artifact with the final scores without each site (`RunResult.without_site`)."""
SUBGROUPS = "subgroups.json"
"""Artifact with the final scores by subgroup (`RunResult.subgroups`)."""
EVENTS = "events.json"
"""Artifact with the event-based scores of each class, where windows have a place in time (`RunResult.events`)."""
TAU_CURVE = "tau_curve.csv"
"""Artifact with the final scores over tau, where a run finds tau on held-out rows: one checkpoint, 17 strengths."""
LOSS, WEIGHTS, CLASSES = "loss", "weights", "classes"
"""Kinds of suspicion: training diverged, the weights did not move, one class is predicted for every row."""
_SHOWN = ("minority_recall", "macro_recall", "min_class_recall", "accuracy")
_SITES = 10  # named in one line
_MOST_CLASSES = 20  # in a notebook's table: the largest and the rarest


class TemperatureCurve(TypedDict):
    """Held-out log loss by temperature: mean over ``rows`` rows in nats, and ``tau``, the temperature of the least."""

    tau: float
    at_edge: bool
    rows: int
    folds: int
    temperatures: list[float]
    log_loss: list[float]


class HeldOut(TypedDict):
    """What held-out rows say: curves by rule, classes with too few rows, and what the trainings cost by figure."""

    rules: dict[str, TemperatureCurve]
    never_held_out: list[str]
    cost: dict[str, float]


@dataclass(frozen=True)
class RowResult:
    """One row of a comparison.

    Attributes:
        label: row label.
        metrics: summary metrics, mean over the last k evaluated rounds of the last part of the training
            (``macro_recall``, ``minority_recall``, ...).
        final: the same scores in the final round.
        confusion: final-round matrix [C, C] int64, rows are true classes; [C, 2, 2] (class, true, predicted) if rows
            have several labels. Where sites' own models were scored, each test row counts once for every site.
        copies: how often each test row counts in ``confusion``: 1, or the number of sites whose own models were scored.
        intervals: ``name -> [low, high]`` 95 % within-run intervals of the final round (stratified bootstrap).
        recall: per class ``[recall, low, high]`` with Wilson's interval.
        probability: ``ece``, ``classwise_ece``, ``log_loss``, ``brier``, ``auroc``, ``auprc`` of the final round's
            calibrated probabilities (`fedimb.evaluation.probabilities`).
        auroc, auprc: per class [C], one against the rest, from the same probabilities; NaN where undefined.
        worst_client, mean_client, best_client: lowest, mean and highest accuracy expected at a client from the classes
            it holds (`fedimb.evaluation.costs.client_accuracies`: exact only if clients differ in label mix alone),
            over the clients for which it is defined, each by its own model if it has one; NaN if there are none, or if
            rows have several labels.
        defined_clients: number of these clients.
        suspect: kind (`LOSS`, `WEIGHTS`, `CLASSES`) -> why this row should not be trusted; empty: nothing was seen.
        alarms: class name -> when and how far its recall fell (`fedimb.evaluation.recall_drop`); empty: it did not.
        tau: strength of post-hoc logit adjustment; NaN: another calibration.
        tau_rule: how tau was found on held-out rows (`fedimb.serverapp.temperature`); empty: it was given.

    Values that a run folder of an earlier version lacks are empty, NaN or 0.
    """

    label: str
    metrics: dict[str, float]
    final: dict[str, float]
    confusion: NDArray[np.int64]
    intervals: dict[str, list[float]]
    recall: list[list[float]]
    probability: dict[str, float] = field(default_factory=dict)
    auroc: list[float] = field(default_factory=list)
    auprc: list[float] = field(default_factory=list)
    worst_client: float = math.nan
    mean_client: float = math.nan
    best_client: float = math.nan
    defined_clients: int = 0
    suspect: dict[str, str] = field(default_factory=dict)
    alarms: dict[str, str] = field(default_factory=dict)
    tau: float = math.nan
    tau_rule: str = ""
    copies: int = 1

    @property
    def tested_matrix(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """``confusion`` with each test row counted once: itself, or float64, the mean over sites' own models."""
        return self.confusion if self.copies == 1 else self.confusion / self.copies


@dataclass(frozen=True)
class RunResult:
    """A finished run, as `fedimb.run` returns it.

    Attributes:
        folder: the run folder.
        rows: one `RowResult` per calibration, in configured order.
        up_bytes, down_bytes: payload over all clients and rounds.
        seconds: wall time of the rounds, engine start excluded.
        train_counts: [C] int64 training rows of each class over the federation.
        class_names, minority: names by class id, and the minority class ids.
        seed: run seed.
        prior_counts: [C] float64 counts behind the class prior in the last round; None if no part reads them, or if the
            run folder is of a version that did not keep them.
        task: ``multiclass``, or ``multilabel`` if rows have several labels.
        client_seconds: training time summed over clients and rounds (without queries).
        steps: local optimiser steps, summed in the same way.
        server_steps: optimiser steps at the server (`fedimb.contracts.platform.SERVER_STEPS`).
        labels: labelled rows used: the last ``data/labelled`` that the method logged, else all rows of the clients,
            including validation rows. These four are NaN if the run folder is of a version that did not keep them.
        privacy: settings and epsilons of a run with noise on its updates (`fedimb.privacy.ledger`); None without noise.
        left_out: replies that were not as their contract or the plan says (the first 100), and clients that were set
            aside: ``where``, ``client``, ``site``, ``record``, ``field``, ``reason``.
        untrained: of sites whose own model was never trained, and is in no score: ``sites``, their names (empty if the
            sum of masked matrices hides them), and ``rows``, their validation rows where those score the run; None if
            all were trained.
        without_site: row label -> site -> final ``macro_recall`` and ``minority_recall`` without its matrix, and its
            ``rows``; empty unless the sites' own rows score the run in the clear.
        subgroups: of a run with ``data.subgroups``: ``floor``, ``without`` (sites that sent no such counts), and
            ``rows``: row label -> final scores of each attribute's groups
            (`fedimb.evaluation.subgroups.subgroup_tables`); else empty.
        attack: of a simulated attack its ``name``, the ``clients`` that attack and the round of its ``start``; None
            without.
        temperature: of a run that scored held-out rows: ``rules``: rule (``validation``: of the final model, by
            ``evaluation.temperature``) -> ``tau``, ``at_edge``, ``rows``, ``folds``, ``temperatures``, ``log_loss``;
            ``never_held_out``: classes; ``cost``: of the trainings without a fold, which no other figure includes.
            None without.
        events: of a run on windows of recordings: row label -> class -> ``events``, ``detected``, ``sensitivity``,
            ``false_alarms``, ``hours``, ``false_alarms_per_hour`` of the final model on the test rows
            (`fedimb.evaluation.events`); else empty.
        phases: of a run that trained classes in phases: ``classes``: ids of each phase, and ``rows``: row label ->
            ``recall`` [P][P] of phase j's classes (columns) after phase k (rows), ``forgetting`` of each phase but the
            last, and ``mean_forgetting`` (`fedimb.evaluation.phases`); else empty.
        site: whose `model` is meant, where sites have models of their own; see `fedimb.rundir.model_file.load_model`.
        virtual_s: seconds on the clock of the run's pace; NaN without a clock.
    """

    folder: Path
    rows: tuple[RowResult, ...]
    up_bytes: int
    down_bytes: int
    seconds: float
    train_counts: NDArray[np.int64]
    class_names: tuple[str, ...]
    minority: tuple[int, ...]
    seed: int
    prior_counts: NDArray[np.float64] | None = None
    task: str = "multiclass"
    client_seconds: float = math.nan
    steps: float = math.nan
    labels: float = math.nan
    privacy: dict[str, float] | None = None
    left_out: list[dict[str, object]] = field(default_factory=list)
    untrained: dict[str, object] | None = None
    without_site: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    subgroups: dict[str, object] = field(default_factory=dict)
    attack: dict[str, object] | None = None
    temperature: HeldOut | None = None
    events: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    site: str | None = None
    virtual_s: float = math.nan
    server_steps: float = math.nan
    phases: dict[str, object] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """Summary metrics of the first row."""
        return self.rows[0].metrics

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Final-round confusion matrix of the first row, [C, C] int64, or [C, 2, 2] (see `RowResult`)."""
        return self.rows[0].confusion

    @property
    def model(self) -> TrainedModel:
        """The trained global model, in eval mode; see `fedimb.rundir.model_file`."""
        return load_model(self.folder, site=self.site)

    @property
    def suspect(self) -> str:
        """Why the run should not be trusted, with the row where rows differ; empty if nothing was seen."""
        return suspect_text({row.label: row.suspect for row in self.rows})

    @property
    def refused(self) -> bool:
        """Whether the run is suspect and its configuration says ``run.on_suspect=fail``."""
        config = RunFolder(self.folder).read_json("config.json")
        return bool(self.suspect) and config.get("run", {}).get("on_suspect") == "fail"

    def raise_if_refused(self) -> None:
        """Raise RunSuspect if the run is `refused`."""
        if self.refused:
            raise RunSuspect(f"suspect: {self.suspect}; everything is written to {self.folder}")

    def summary(self) -> str:
        """One line of summary metrics per row, then the run folder."""
        shown = ("macro_recall", "minority_recall", "min_class_recall")
        lines = [
            f"{row.label}: " + ", ".join(f"{name} {row.metrics[name]:.3f}" for name in shown if name in row.metrics)
            for row in self.rows
        ]
        lines += self._event_lines()
        lines += [f"suspect: {self.suspect}"] if self.suspect else []
        return "\n".join([*lines, f"run folder {self.folder} (fedimb show {self.folder})"])

    def to_frame(self, of: Literal["rows", "classes"] = "rows") -> "DataFrame":
        """The result as a pandas frame.

        Args:
            of: ``rows``: a line per row (calibration) with seed, summary scores (means over the last evaluated rounds),
                final scores of probabilities, costs (bytes, seconds, steps, labels) and why it is suspect.
                ``classes``: a line per row and class, classes from most to fewest training rows, with recall and its
                Wilson interval, AUROC and AUPRC of the final round.

        Raises:
            ConfigError: pandas is not installed.
            ValueError: ``of`` is neither.
        """
        if of == "classes":
            return frame([self._class_line(row, c) for row in self.rows for c in self._head_to_tail()])
        if of != "rows":
            raise ValueError(f"of={of!r}: give 'rows' or 'classes'")
        costs = {"up_bytes": self.up_bytes, "down_bytes": self.down_bytes, "client_seconds": self.client_seconds}
        costs |= {"steps": self.steps, "server_steps": self.server_steps, "labels": self.labels}
        return frame(
            [
                {"row": row.label, "seed": self.seed, **row.probability, **row.metrics, **costs}
                | {"suspect": "; ".join(row.suspect.values())}
                for row in self.rows
            ]
        )

    def _class_line(self, row: RowResult, c: int) -> dict[str, object]:
        recall, low, high = row.recall[c]
        line: dict[str, object] = {"row": row.label, "class": self.class_names[c], "minority": c in self.minority}
        line |= {"train_rows": int(self.train_counts[c]), "recall": recall, "low": low, "high": high}
        aurocs = {name: getattr(row, name) for name in ("auroc", "auprc")}
        return line | {name: values[c] if len(values) else math.nan for name, values in aurocs.items()}

    def _head_to_tail(self) -> list[int]:
        """Class ids from most to fewest training rows."""
        return [int(c) for c in np.argsort(-self.train_counts, kind="stable")]

    def _repr_html_(self) -> str:
        """For notebooks: summary scores, then recall per class with Wilson's interval."""
        names = [name for name in _SHOWN if any(name in row.metrics for row in self.rows)]
        head = ["row", *(name.replace("_", " ") for name in names)]
        lines = [
            [row.label + " ?" * bool(row.suspect), *(score(row.metrics.get(n, math.nan)) for n in names)]
            for row in self.rows
        ]
        sent = (self.up_bytes + self.down_bytes) / 1e6
        caption = f"{self.folder.name}: seed {self.seed}, {sent:.3g} MB sent, {self.seconds:.3g} s"
        notes = [f"Means over the last evaluated rounds. Run folder: {self.folder}"]
        notes += [f"? suspect: {self.suspect}"] if self.suspect else []
        return html_table(caption, head, lines, notes) + self._class_table()

    def _class_table(self) -> str:
        order = self._head_to_tail()
        hidden = max(0, len(order) - _MOST_CLASSES)
        if hidden:
            order = order[: _MOST_CLASSES // 2] + order[-_MOST_CLASSES // 2 :]
        lines = []
        for c in order:
            cells = [f"{self.class_names[c]}{' (minority)' * (c in self.minority)}", f"{self.train_counts[c]:,}"]
            for recall, low, high in (row.recall[c] for row in self.rows):
                cells.append("n/a" if math.isnan(recall) else f"{recall:.3f} ({low:.2f} to {high:.2f})")
            lines.append(cells)
        notes = [f"{hidden} classes between are not shown; to_frame('classes') has all."] if hidden else []
        head = ["class, head to tail", "training rows", *(f"recall of {row.label}" for row in self.rows)]
        return html_table("Recall per class in the final round, with Wilson's 95 % interval", head, lines, notes)

    def _event_lines(self) -> list[str]:
        """One line per row and minority class with true events, where windows have a place in time."""
        minority = [self.class_names[c] for c in self.minority]
        return [
            f"{row}, events of {name}: {one['detected']} of {one['events']} found, "
            f"{one['false_alarms_per_hour']:.3g} false alarms per hour"
            for row, by_class in self.events.items()
            for name, one in by_class.items()
            if name in minority and one["events"]
        ]

    @classmethod
    def read(cls, path: str | Path) -> "RunResult":
        """Read the folder of a finished run.

        Raises:
            FedimbError: it is not finished.
            Damaged: ``result.json`` is missing or not as it was written.
        """
        folder = RunFolder.open(Path(path))
        data = folder.read_json("result.json")
        if data is None:
            status = folder.status()
            if status == "finished":
                raise Damaged(
                    f"{folder.path / 'result.json'} is missing, though the run has finished: "
                    f"fedimb run --resume {path} writes it again from the checkpoint"
                )
            raise FedimbError(f"{path} is not finished (status: {status}): fedimb run --resume {path}")
        try:
            return cls._of(folder, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(
                f"{folder.path / 'result.json'} is damaged ({type(error).__name__}: {error}): "
                f"fedimb run --resume {path} writes it again from the checkpoint"
            ) from None

    @classmethod
    def _of(cls, folder: RunFolder, data: JsonObject) -> "RunResult":
        rows = tuple(
            RowResult(**{**row, "confusion": np.array(row["confusion"], dtype=np.int64)}) for row in data["rows"]
        )
        prior = data.get("prior") or {}
        return cls(
            folder=folder.path,
            rows=rows,
            up_bytes=data["up_bytes"],
            down_bytes=data["down_bytes"],
            seconds=data["seconds"],
            train_counts=np.array(data["train_counts"], dtype=np.int64),
            class_names=tuple(data["class_names"]),
            minority=tuple(data["minority"]),
            seed=data["seed"],
            prior_counts=None if prior.get("counts") is None else np.array(prior["counts"], dtype=np.float64),
            task=data.get("task", "multiclass"),
            client_seconds=data.get("client_seconds", math.nan),
            steps=data.get("steps", math.nan),
            labels=data.get("labels", math.nan),
            privacy=data.get("privacy"),
            left_out=data.get("left_out", []),
            untrained=data.get("untrained"),
            without_site=folder.read_json(f"artifacts/{WITHOUT_SITE}", {}),
            subgroups=folder.read_json(f"artifacts/{SUBGROUPS}", {}),
            attack=data.get("attack"),
            temperature=data.get("temperature"),
            events=folder.read_json(f"artifacts/{EVENTS}", {}),
            virtual_s=data.get("virtual_s", math.nan),
            server_steps=data.get("server_steps", math.nan),
            phases=data.get("phases", {}),
        )


class PartTracker:
    """Tells, from the metrics of a row's rounds in order, where a new part of its training begins."""

    def __init__(self) -> None:
        self._said = {PART: 0.0}

    def begins(self, metrics: Mapping[str, Any]) -> bool:
        """Whether a part begins with this round: one that does not say its part is of the part of the one before.

        A run of an earlier version says it by replaced weights, or by another phase, stage or labelling cycle.
        """
        now = self._said | {key: metrics[key] for key in (PART, *EARLIER_PARTS) if key in metrics}
        changed = any(now[key] != before for key, before in self._said.items())
        self._said = now
        return changed or REPLACED in metrics


def of_last_part(lines: Iterable[JsonObject]) -> list[JsonObject]:
    """Metrics of a row's scored rounds of the last part of its training, in order: what its means are over.

    Rounds of earlier parts (`fedimb.contracts.platform.PART`) are of other weights, or of a training on other rows.

    Args:
        lines: the metrics of all rounds of the row. Of earlier versions' runs neither what follows a warm-up nor new
            labels (`strategy=fedrela`) can be told from what was before.
    """
    found: list[JsonObject] = []
    parts = PartTracker()
    for metrics in lines:
        if parts.begins(metrics):
            found = []
        if "test/macro_recall" in metrics:
            found.append(metrics)
    return found


def untrained_text(untrained: Mapping[str, Any]) -> str:
    """What `RunResult.untrained` says, in one line."""
    sites, rows = list(untrained["sites"]), int(untrained["rows"])
    shown = ", ".join(map(str, sites[:_SITES])) + (", ..." if len(sites) > _SITES else "")
    who = f"{len(sites)} site{'s' * (len(sites) != 1)} ({shown})" if sites else "sites that masks do not name"
    of_rows = f", whose {rows} validation rows count for nothing" if rows else ""
    return f"scores are without {who}: their own model was never trained{of_rows}; run more rounds to score all"


def suspect_text(by_row: Mapping[str, Mapping[str, str]]) -> str:
    """The suspicions of a run's rows (label -> kind -> why) in one line; those of all rows are said once."""
    rows: dict[str, list[str]] = {}
    for label, found in by_row.items():
        for why in found.values():
            rows.setdefault(why, []).append(label)
    return "; ".join(
        why if len(labels) == len(by_row) else f"{', '.join(labels)}: {why}" for why, labels in rows.items()
    )
