"""Predictions for batches of rows: the model's probabilities, its calibrated scores, and the class they lead to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedimb.data.labels import UNKNOWN_CELL
from fedimb.data.new_rows import RowBatch
from fedimb.data.scaling import Scaling, prepared
from fedimb.evaluation.thresholds import DecisionRule, decide, decide_labels
from fedimb.models.base import Classifier
from fedimb.models.heads import SimplexHead, open_set_score
from fedimb.training.calibrations.base import Calibration, Outputs
from fedimb.training.forward import forward_batched


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of n rows.

    Attributes:
        rows: [n] int64 row numbers in the data, from 0.
        predicted: [n] int64 class ids, -1 where the rule abstains; if rows have several labels [n, C] bool.
        scores: [n, C] float32, softmax of the calibrated logits (rows sum to 1), or their sigmoids if rows have
            several labels.
        probabilities: [n, C] float32, the same of the logits before calibration: the model's own.
        class_names: one per class id.
        ids: n texts that name the rows in the data; None if there are none.
        labels: [n] int64 true class ids, -1 where unknown, or [n, C] uint8 of 0, 1 and
            `fedimb.data.labels.UNKNOWN_CELL`; None if the data have no labels.
        known: [n] float32 in (0, 1], near 0 for a row that may be of none of the classes; None unless the model has
            ``head: simplex`` (`fedimb.models.heads.open_set_score`).
    """

    rows: NDArray[np.int64]
    predicted: NDArray[np.int64 | np.bool_]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    class_names: tuple[str, ...]
    ids: tuple[str, ...] | None = None
    labels: NDArray[np.integer] | None = None
    known: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def several(self) -> bool:
        """Whether rows have several labels."""
        return self.predicted.ndim == 2

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each row's predicted class: "" where the rule abstains; several names joined by ``|``."""
        return tuple(label_text(label, self.class_names) for label in self.predicted)

    @staticmethod
    def joined(parts: Sequence["Predictions"]) -> "Predictions":
        """Consecutive batches, at least one, as one."""
        first = parts[0]

        def of(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        return Predictions(
            of("rows"),
            of("predicted"),
            of("scores"),
            of("probabilities"),
            first.class_names,
            None if first.ids is None else tuple(one for part in parts for one in part.ids or ()),
            None if first.labels is None else of("labels"),
            None if first.known is None else of("known"),
        )


def label_text(label: NDArray[Any], class_names: Sequence[str]) -> str:
    """A class id, or flags [C], as class names; "" for none. A class of which it is not known has a ? before it."""
    if np.ndim(label):
        marks = {1: "", UNKNOWN_CELL: "?"}
        return "|".join(f"{marks[int(label[c])]}{class_names[c]}" for c in np.flatnonzero(label).tolist())
    return class_names[int(label)] if label >= 0 else ""


class Scorer:
    """Predicts batches of rows.

    Args:
        classifier: the network.
        scale, scaling: of its inputs, as in training.
        calibration: applied to the logits.
        counts: class counts [C] for the calibration's prior; None if it reads none.
        rule: from scores to classes.
        class_names: one per logit.
        several: whether rows have several labels.
    """

    def __init__(
        self,
        classifier: Classifier,
        scale: float,
        scaling: Scaling | None,
        calibration: Calibration,
        counts: NDArray[np.float64] | None,
        rule: DecisionRule,
        class_names: tuple[str, ...],
        several: bool,
    ) -> None:
        self._classifier, self._scale, self._scaling = classifier, scale, scaling
        self._calibration, self._counts, self._rule = calibration, counts, rule
        self._names, self._several = class_names, several

    @torch.no_grad()
    def __call__(self, batch: RowBatch) -> Predictions:
        """Predict one batch. A row's result does not depend on the others'."""
        features, logits = forward_batched(
            self._classifier, torch.from_numpy(prepared(batch.x, self._scale, self._scaling))
        )
        head = self._classifier.head
        bias = None if head.bias is None else head.bias.detach()
        outputs = Outputs(features, logits, head.weight.detach(), bias, self._counts)
        adjusted: torch.Tensor = self._calibration.adjust(outputs)
        if self._several:
            scores, own = adjusted.sigmoid().numpy(), logits.sigmoid().numpy()
            # Of a tiny positive logit the sigmoid is rounded to .5.
            predicted = decide_labels(scores, self._rule) if self._rule.thresholds else (adjusted > 0).numpy()
        else:
            scores, own = adjusted.softmax(1).numpy(), logits.softmax(1).numpy()
            predicted = decide(scores, self._rule) if self._rule.may_abstain else adjusted.argmax(1).numpy()
        known = open_set_score(logits).numpy() if isinstance(head, SimplexHead) else None
        return Predictions(batch.rows, predicted, scores, own, self._names, batch.ids, batch.labels, known)
