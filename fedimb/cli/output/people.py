"""Outputs about work of people: worklists, and the outbox of synthetic samples."""

from typing import Any

from pydantic import Field

from fedimb.cli.output.base import Number, Output, Part, Place


class Cycle(Part):
    """Progress of one cycle of a worklist.

    Attributes:
        cycle: its number.
        folder: its folder.
        state: "imported", "mistakes", "to adjudicate", "ready" (the run can be resumed), "partly" or "waiting".
        items, labelled, unjudged, missing, undecided: numbers of items.
        left_out: rows that per_patient left out.
        kappa: Cohen's kappa of two readers.
        problems: mistakes in the returned files.
    """

    cycle: int
    folder: Place
    state: str
    items: int
    labelled: int
    unjudged: int
    missing: int
    undecided: int
    left_out: int
    kappa: Number
    problems: list[str]


class Worklist(Part):
    """A run's worklist at a site.

    Attributes:
        folder: its folder.
        cycles: its cycles.
    """

    folder: Place
    cycles: list[Cycle]


class WorklistsListing(Output):
    """Progress of labelling.

    Attributes:
        worklists: all below the folder.
    """

    worklists: list[Worklist]


class FileChecked(Output):
    """A returned file. The exit code is 2 if it has mistakes.

    Attributes:
        file: the file.
        problems: its mistakes.
        answered, items: number of items answered, and in the cycle.
    """

    file: Place
    problems: list[str]
    answered: int
    items: int


class ListedBatch(Part):
    """A batch of synthetic samples.

    Attributes:
        batch: its id.
        folder: its folder.
        made: when.
        samples: number of samples.
        waiting, released, rejected: numbers of classes.
        runs: number of runs that used it.
        recalled: why it was recalled; null if it was not.
    """

    batch: str
    folder: Place
    made: str
    samples: int
    waiting: int
    released: int
    rejected: int
    runs: int
    recalled: str | None


class BatchesListing(Output):
    """Batches in outboxes.

    Attributes:
        batches: all below the folder.
    """

    batches: list[ListedBatch]


class BatchClass(Part):
    """A class of a batch that the export gate checked.

    Attributes:
        label: class id.
        name: class name, if known.
        gate: verdict of the gate.
        state: "waiting", "released" or "rejected"; null if it did not pass the gate.
        reasons: the gate's reasons.
        rejected: why a person rejected it; null if nobody did.
        figures: what the gate measured.
        sheet: the contact sheet; null if there is none.
    """

    label: int
    name: str
    gate: str
    state: str | None
    reasons: list[str]
    rejected: str | None
    figures: dict[str, Any]
    sheet: Place | None


class BatchShown(Output):
    """A batch.

    Attributes:
        batch: its id.
        folder: its folder.
        made: when.
        samples: number of samples.
        recalled: why it was recalled; null if it was not.
        classes: all classes that were checked.
        runs: runs that used it.
    """

    batch: str
    folder: Place
    made: str
    samples: int
    recalled: str | None
    classes: list[BatchClass]
    runs: list[str]


class BatchDecided(Output):
    """A person's decision about a batch.

    Attributes:
        batch: its id.
        decision: "released", "rejected" or "recalled".
        classes: ids of the classes; empty for a recall, which is of the whole batch.
        runs: of a recall: runs that used it.
        unreachable: those that could not be marked: tell whoever has them.
    """

    batch: str
    decision: str
    classes: list[int]
    runs: list[str] = Field(default_factory=list)
    unreachable: list[str] = Field(default_factory=list)
