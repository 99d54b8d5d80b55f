"""Event-based scores of a run on recordings: events.json beside the scores of single windows."""

import json

import numpy as np

from fedimb.data.federation import Federation
from fedimb.errors import DataError
from fedimb.evaluation.events import EventScores, events_by_class
from fedimb.rundir.row_scores import RowScores


def events_of(federation: Federation, scored: RowScores) -> dict[str, EventScores]:
    """Scores of each class on the test rows; empty if their places in time are not known, as of single windows.

    A class is predicted where it is the most probable one, or, if rows have several labels, more probable than not.
    True events are the stretches of windows with the label. Windows of which it is unknown whether they have a class
    are left out of that class's events, alarms and hours.
    """
    try:
        store = federation.store
    except DataError:  # a deployment's rows are at its sites
        return {}
    signal = store.signal
    if signal is None or store.origins is None or signal.rate_hz is None or not signal.length:
        return {}
    rows = scored.rows
    recordings = np.zeros(len(rows), np.int64) if store.recordings is None else np.asarray(store.recordings[rows])
    windows = recordings, np.asarray(store.origins[rows]) / signal.rate_hz, signal.length / signal.rate_hz
    return events_by_class(federation.class_names, windows, scored.targets, scored.predicted, scored.known)


def events_artifact(found: dict[str, dict[str, EventScores]]) -> bytes:
    """Content of events.json: row label -> class -> scores."""
    plain = {row: {name: one.facts() for name, one in by_class.items()} for row, by_class in found.items()}
    return (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode()
