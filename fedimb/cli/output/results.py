"""Outputs about one run: how far it is, what it found, and what its result says of sites, subgroups and phases."""

from typing import TYPE_CHECKING, Any

from fedimb.cli.output.base import Number, Output, Part, Place

if TYPE_CHECKING:
    from fedimb.rundir.result import RunResult


class Row(Part):
    """One row of a run: the scores with one calibration.

    Attributes:
        label: row label.
        metrics: summary scores, means over the last evaluated rounds.
        final: the same scores in the final round.
        confusion: final-round matrix [C][C], rows are true classes; [C][2][2] if rows have several labels.
        copies: how often each test row counts in it: 1, or the number of sites whose own models were scored.
        intervals: name -> [low, high], 95 % within-run intervals of the final round.
        recall: per class [recall, low, high], with Wilson's interval.
        probability: scores of the calibrated probabilities.
        auroc, auprc: per class, one against the rest.
        worst_client, mean_client, best_client: accuracy expected at clients from the classes they hold.
        defined_clients: number of clients for which it is defined.
        suspect: kind of suspicion -> why this row should not be trusted; empty if nothing was seen.
        alarms: class -> when and how far its recall fell; empty if nothing was seen.
        tau: strength of post-hoc logit adjustment; null for another calibration.
        tau_rule: how tau was found on held-out rows; empty if it was given.
    """

    label: str
    metrics: dict[str, Number]
    final: dict[str, Number]
    confusion: list[Any]
    intervals: dict[str, list[Number]]
    recall: list[list[Number]]
    probability: dict[str, Number]
    auroc: list[Number]
    auprc: list[Number]
    worst_client: Number
    mean_client: Number
    best_client: Number
    defined_clients: int
    suspect: dict[str, str]
    alarms: dict[str, str]
    tau: Number
    tau_rule: str
    copies: int


class LeftOut(Part):
    """A reply that was not as its contract or the plan says, or a client that was set aside.

    Attributes:
        where: the round or query.
        client: client id.
        site: name of the site; empty in a simulation.
        record, field: what in the reply is at fault; empty for a client that was set aside.
        reason: what is wrong with it.
    """

    where: str
    client: int
    site: str
    record: str
    field: str
    reason: str


class Subgroup(Part):
    """The final scores of one group of an attribute of data.subgroups.

    Attributes:
        row: row label.
        attribute, group: as data.subgroups names them.
        rows, recall: by class; null where hidden (recall also without rows).
        macro_recall, ece, brier: null if a class of the group is hidden.
        minority_recall: null if a minority class of the group is hidden.
        classes, shown_rows: how many classes are shown and have rows, and their rows.
        shown_recall, shown_ece, shown_brier: over these classes.
        all_recall, all_ece, all_brier: the same of all rows of these classes.
        gap: shown_recall - all_recall.
    """

    row: str
    attribute: str
    group: str
    rows: list[int | None]
    recall: list[Number]
    macro_recall: Number
    minority_recall: Number
    ece: Number
    brier: Number
    classes: int
    shown_rows: int
    shown_recall: Number
    shown_ece: Number
    shown_brier: Number
    all_recall: Number
    all_ece: Number
    all_brier: Number
    gap: Number


class Untrained(Part):
    """Sites whose own model was never trained, and is in no score.

    Attributes:
        sites: their names; empty if the sum of masked matrices hides them.
        rows: their validation rows, where those score the run.
    """

    sites: list[str]
    rows: int


class TemperatureCurve(Part):
    """Held-out log loss by temperature.

    Attributes:
        tau: the temperature of the least log loss.
        at_edge: whether it is the lowest or highest allowed.
        rows, folds: rows scored, in how many folds; 0 folds: validation rows, by the final model.
        temperatures, log_loss: 37 temperatures and the mean log loss in nats at each.
    """

    tau: float
    at_edge: bool
    rows: int
    folds: int
    temperatures: list[float]
    log_loss: list[Number]


class Temperature(Part):
    """What held-out rows say of the strength of post-hoc correction.

    Attributes:
        rules: by tau's rule (temperature, temperature_one_fold, oracle_pool), or "validation": what it found.
        never_held_out: classes with too few rows to hold any out.
        cost: up_bytes, down_bytes, steps, server_steps, client_seconds of trainings without a fold, beside the run's.
    """

    rules: dict[str, TemperatureCurve]
    never_held_out: list[str]
    cost: dict[str, Number]


class PhaseRow(Part):
    """One row of a run that trained classes in phases.

    Attributes:
        recall: [phase][phase], of the classes of the second phase after the first.
        forgetting: of each phase but the last: its highest recall before the last phase, minus that after it.
        mean_forgetting: their mean.
    """

    recall: list[list[Number]]
    forgetting: list[Number]
    mean_forgetting: Number


class Phases(Part):
    """Recall and forgetting where classes arrive in phases.

    Attributes:
        classes: class ids of each phase.
        rows: by row label.
    """

    classes: list[list[int]]
    rows: dict[str, PhaseRow]


class RunFinished(Output):
    """A finished run. The exit code is 3 if it is suspect and its configuration refuses that.

    Attributes:
        folder: the run folder.
        status: "finished".
        seed: run seed.
        rows: one per calibration, in configured order.
        task: "multiclass", or "multilabel" if rows have several labels.
        class_names: by class id.
        minority: ids of the minority classes.
        train_counts: training rows of each class over all clients.
        up_bytes, down_bytes: payload over all clients and rounds.
        seconds: wall time of the rounds.
        client_seconds, steps, labels: training time and optimiser steps over all clients, labelled rows used.
        privacy: settings and epsilons of a run with noise on its updates; null without.
        left_out: replies that the server did not use (the first 100), and clients set aside.
        untrained: sites that no score is of, as their own model was never trained; null if all were trained.
        without_site: row label -> site -> final macro_recall and minority_recall without its matrix, and its rows.
        subgroups: scores by subgroup; empty unless data.subgroups is set.
        attack: of a simulated attack its name, the clients that attack and the round of its start; null without.
        temperature: what held-out rows say of the strength of post-hoc correction; null if none were scored.
        events: row label -> class -> events, detected, sensitivity, false_alarms, hours, false_alarms_per_hour of
            windows of recordings; empty of other data.
        phases: recall and forgetting by phase; null unless classes were trained in phases.
        suspect: why the run should not be trusted; empty if nothing was seen.
        meaning: one sentence on what the result means.
    """

    folder: Place
    status: str = "finished"
    seed: int
    rows: list[Row]
    task: str
    class_names: list[str]
    minority: list[int]
    train_counts: list[int]
    up_bytes: int
    down_bytes: int
    seconds: float
    client_seconds: Number
    steps: Number
    labels: Number
    privacy: dict[str, Number] | None
    left_out: list[LeftOut]
    untrained: Untrained | None
    without_site: dict[str, dict[str, dict[str, Number]]]
    subgroups: list[Subgroup]
    attack: dict[str, Any] | None
    temperature: Temperature | None
    events: dict[str, dict[str, dict[str, Number]]]
    phases: Phases | None
    suspect: str
    meaning: str

    @classmethod
    def from_result(cls, result: "RunResult", refuse: bool = True) -> "RunFinished":
        """The output for a finished run; ``refuse``: with exit code 3 if its configuration refuses a suspect result."""
        from fedimb.errors import RunSuspect
        from fedimb.report.run_meaning import run_sentence

        rows = [
            {name: getattr(row, name) for name in Row.model_fields} | {"confusion": row.confusion.tolist()}
            for row in result.rows
        ]
        names = set(cls.model_fields) & set(vars(result))
        by_subgroup: Any = result.subgroups.get("rows") or {}
        facts = {name: getattr(result, name) for name in names} | {
            "rows": rows,
            "subgroups": [
                {"row": row, "attribute": table["name"], **group}
                for row, tables in by_subgroup.items()
                for table in tables
                for group in table["groups"]
            ],
            "train_counts": result.train_counts.tolist(),
            "phases": result.phases or None,
            "suspect": result.suspect,
            "exit_code": RunSuspect.exit_code if refuse and result.refused else 0,
            "meaning": run_sentence(result),
        }
        return cls.model_validate(facts)


class RunUnfinished(Output):
    """A run that is not finished.

    Attributes:
        folder: the run folder.
        status: "running", "killed", "waiting" (for a person) or "failed".
        reason: why it waits or failed.
        labels: its row labels.
        seed: run seed.
        rounds_done, rounds: rounds done, and rounds configured.
        scores: test scores of the last evaluated round.
        idle_s: seconds since its last sign of life.
    """

    folder: Place
    status: str
    reason: str
    labels: list[str]
    seed: int
    rounds_done: int
    rounds: int
    scores: dict[str, Number]
    idle_s: float
