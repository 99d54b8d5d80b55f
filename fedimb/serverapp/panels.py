"""Figures of a method for the report, in the run folder's ``artifacts/panels/``; the report draws them."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def tau_panel(curve: Sequence[tuple[float, Mapping[str, float]]], found: Mapping[str, float]) -> bytes:
    """The content of ``panels/<name>.json`` for scores over the strength of the shift, on one model.

    Args:
        curve: (tau, scores by name), in order.
        found: what held-out rows gave, by rule.
    """
    rules = ", ".join(f"{rule} {tau:.2f}" for rule, tau in found.items())
    panel = {
        "title": "scores over the strength of the shift",
        "caption": f"One model's test scores, logits shifted by tau log prior; on held-out rows: {rules}. The curve "
        "reads the test rows, so no tau may be chosen from it.",
        "tau": [tau for tau, _ in curve],
        "scores": {name: [own[name] for _, own in curve] for name in ("macro_recall", "minority_recall")},
        "found": dict(found),
    }
    return (json.dumps(panel) + "\n").encode()


def phases_panel(classes: Sequence[Sequence[str]], recall: Mapping[str, Sequence[Sequence[float]]]) -> bytes:
    """The content of ``panels/<name>.json`` for recall by phase; the report draws a line for each phase's classes.

    Args:
        classes: class names of each phase.
        recall: by row, [P, P]: of phase j's classes (columns) after phase k (rows).
    """
    first = next(iter(recall))
    panel = {
        "title": "recall of each phase's classes",
        "caption": f"Mean recall on test rows, among all classes, after each phase, of row {first}; what a line loses "
        "from its highest point to the end is that phase's forgetting.",
        "phases": [list(own) for own in classes],
        "recall": [[None if math.isnan(value) else value for value in own] for own in recall[first]],
    }
    return (json.dumps(panel) + "\n").encode()


def kept_panel(title: str, kept: NDArray[np.integer], held: NDArray[np.integer], class_names: Sequence[str]) -> bytes:
    """The content of ``panels/<name>.json`` for rows kept out of rows held; the report draws one bar per class.

    Args:
        title: title of the panel.
        kept, held: [C] number of rows.
        class_names: C names.
    """
    share = kept.sum() / max(1, held.sum())
    panel = {
        "title": title,
        "caption": f"{int(kept.sum())} of {int(held.sum())} rows ({share:.0%}), classes from head to tail.",
        "kept": kept.tolist(),
        "held": held.tolist(),
        "class_names": list(class_names),
    }
    return (json.dumps(panel) + "\n").encode()
