"""Outputs about runs: configurations, costs, lists, predictions, reports, models."""

from typing import TYPE_CHECKING, Any

from fedimb.cli.output.base import Number, Output, Part, Place

if TYPE_CHECKING:
    from fedimb.cli.facts import RunFacts


class Configuration(Output):
    """A resolved configuration.

    Attributes:
        configuration: all settings, as in config.json.
    """

    configuration: dict[str, Any]


class Cost(Output):
    """The estimated cost of a run.

    Attributes:
        rounds, messages, steps: train messages and optimiser steps over all rounds and clients.
        up_bytes, down_bytes: payload over all clients and rounds.
        start_s, seconds: seconds of the engine's start, and of the rounds, on this machine.
        folds: trainings without a fold that are made beside the run's, for a tau from held-out rows.
        fold_steps, fold_up_bytes, fold_down_bytes, fold_seconds: what these cost together, beside the other figures.
    """

    rounds: int
    messages: int
    steps: int
    up_bytes: int
    down_bytes: int
    start_s: float
    seconds: float
    folds: int
    fold_steps: int
    fold_up_bytes: int
    fold_down_bytes: int
    fold_seconds: float


class ListedRow(Part):
    """A row of a listed run.

    Attributes:
        label: row label.
        scores: summary scores; empty if the run is not finished.
    """

    label: str
    scores: dict[str, Number]


class ListedRun(Part):
    """A run in a list.

    Attributes:
        study: its study.
        name: its folder's name.
        folder: the run folder.
        status: "running", "killed", "waiting", "failed" or "finished".
        reason: why it waits or failed.
        seed: run seed.
        rounds_done, rounds: rounds done, and rounds configured.
        rows: one per calibration.
        idle_s: seconds since its last sign of life.
        bytes: size of the folder.
    """

    study: str
    name: str
    folder: Place
    status: str
    reason: str
    seed: int
    rounds_done: int
    rounds: int
    rows: list[ListedRow]
    idle_s: float
    bytes: int

    @classmethod
    def from_facts(cls, facts: "RunFacts") -> "ListedRun":
        """The entry of a run."""
        from fedimb.cli.facts import age, size_of

        rows = [ListedRow(label=label, scores=dict(facts.scores.get(label, {}))) for label in facts.labels]
        return cls(
            study=facts.path.parent.name,
            name=facts.path.name,
            folder=facts.path,  # type: ignore[arg-type]
            status=facts.status,
            reason=facts.reason,
            seed=facts.seed,
            rounds_done=facts.done,
            rounds=facts.total,
            rows=rows,
            idle_s=age(facts),
            bytes=size_of(facts.path),
        )


class RunsListing(Output):
    """Runs, by study and name.

    Attributes:
        runs: all runs below --output-dir, or of one study.
    """

    runs: list[ListedRun]


class Deleted(Part):
    """Something deleted.

    Attributes:
        path: what.
        bytes: its size.
        why: why it was deleted.
    """

    path: Place
    bytes: int
    why: str


class RunsDeleted(Output):
    """What was deleted; with exit code 1 nothing, because a person declined.

    Attributes:
        deleted: files and folders.
        freed_bytes: their size together.
    """

    deleted: list[Deleted]
    freed_bytes: int


class TrackingSent(Output):
    """What was sent to MLflow.

    Attributes:
        folder: the run folder.
        sent_points: metric values sent now.
        runs: row label -> MLflow run id.
        uri: the store, without password.
        experiment: its experiment.
        charts: address of the study's charts.
    """

    folder: Place
    sent_points: int
    runs: dict[str, str]
    uri: str
    experiment: str
    charts: str


class ModelRegistered(Output):
    """A model in MLflow's model registry.

    Attributes:
        name, version: of the registered model.
        address: for mlflow.pyfunc.load_model.
        uri: for mlflow.set_tracking_uri, without password.
        folder: the run folder.
    """

    name: str
    version: str
    address: str
    uri: str
    folder: Place


class Predicted(Output):
    """What was predicted.

    Attributes:
        folder: the run folder of the model.
        rows: number of rows.
        out: the file with one line per row.
        card: the model card.
        abstained: rows without a predicted class.
        thresholds: class -> threshold; null if none was chosen.
        scores: scores against the labels; empty if there are none.
        warnings: what a reader of the predictions must know.
    """

    folder: Place
    rows: int
    out: Place
    card: Place
    abstained: int
    thresholds: dict[str, Number] | None
    scores: dict[str, Number]
    warnings: list[str]


class ExplanationFound(Part):
    """One explanation.

    Attributes:
        name: of the explanation.
        file: the JSON file with all figures.
        rows: class -> rows of all clients that it is about; 0 where too few people have it.
        sanity_passed: whether models with random weights are told apart; null if it is not checked.
        fidelity: of surrogate trees, the share of rows on which they agree with the model; else null.
    """

    name: str
    file: Place
    rows: dict[str, int]
    sanity_passed: bool | None
    fidelity: Number


class RunExplained(Output):
    """Explanations of a run's model.

    Attributes:
        folder: the run folder.
        explanations: one per name.
    """

    folder: Place
    explanations: list[ExplanationFound]


class ReportWritten(Output):
    """A report.

    Attributes:
        report: the HTML file.
        source: folder of the run or study it is about.
    """

    report: Place
    source: Place
