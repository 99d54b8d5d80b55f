"""Scored rows without a run: made-up models on made-up test rows, for comparisons of two models."""

from pathlib import Path

import numpy as np

from fedimb.rundir.row_scores import RowScores
from fedimb.study.model_pairs import ScoredRow

NAMES = ("frequent", "middle", "rare")
LABELS = np.repeat([0, 1, 2], [60, 30, 12])


def scored(skill, label="a", seed=0, draw=0, **change):
    """A model that adds ``skill`` to the true class's logit, among noise; other fields of the scores by name."""
    rng = np.random.default_rng([draw, seed])
    labels = change.get("labels", LABELS)
    logits = rng.normal(size=(len(labels), 3)).astype(np.float32)
    logits[np.arange(len(labels)), labels if labels.ndim == 1 else 0] += np.float32(skill)
    facts = {"rows": np.arange(len(labels)) + seed, "labels": labels, "logits": logits, "patients": None}
    facts |= {"test_set": f"hash of seed {seed}", "class_names": NAMES}
    minority = change.pop("minority", (2,))
    return ScoredRow(label, Path(f"runs/study/{label}-s{seed}"), seed, RowScores(**(facts | change)), minority)
