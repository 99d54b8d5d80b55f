"""A run's final scores of each test row: ``artifacts/rows/<row>/test_scores.npz``.

Written at the end of a run whose test rows are the server's, so that two runs can be tested on the same rows
(`fedimb.study.model_pairs`). Rows that stay at clients have none: scores of patients do not leave a site.
"""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.labels import UNKNOWN_CELL, known_cells
from fedimb.data.store import Store
from fedimb.errors import FedimbError
from fedimb.evaluation.confusion import confusion_matrix
from fedimb.evaluation.multilabel import label_confusion

if TYPE_CHECKING:
    from fedimb.rundir.folder import RunFolder

FILE = "test_scores.npz"
_FORMAT = 1
_CHUNK = 4096  # rows read at a time for the hash


@dataclass(frozen=True)
class RowScores:
    """One row (calibration) of a run: its final scores of every test row.

    Attributes:
        rows: [n] int64, row numbers in the source, ascending.
        labels: [n] int64 class ids, or targets [n, C] uint8 of 0, 1 and `fedimb.data.labels.UNKNOWN_CELL` if rows have
            several labels.
        logits: [n, C] float32, calibrated, as they were scored.
        patients: [n] int64, equal for rows of the same patient; None if the source does not name patients.
        test_set: sha256 (hex) of the test rows' contents (`hash_of_rows`).
        class_names: by class id.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.generic]
    logits: NDArray[np.float32]
    patients: NDArray[np.int64] | None
    test_set: str
    class_names: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether rows have several labels."""
        return self.labels.ndim == 2

    @property
    def targets(self) -> NDArray[np.bool_]:
        """Which classes each row is known to have, [n, C]."""
        if self.several:
            return np.asarray(self.labels == 1, np.bool_)
        found: NDArray[np.bool_] = self.labels[:, None] == np.arange(len(self.class_names))
        return found

    @property
    def known(self) -> NDArray[np.bool_]:
        """Of which classes it is known whether each row has them, [n, C]."""
        wide = (len(self.rows), len(self.class_names))
        return np.asarray(self.labels != UNKNOWN_CELL, np.bool_) if self.several else np.ones(wide, np.bool_)

    @cached_property
    def predicted(self) -> NDArray[np.bool_]:
        """Which classes the model predicts, [n, C]: the largest logit; of several labels those above 0."""
        if self.several:
            return self.logits > 0
        found: NDArray[np.bool_] = self._largest[:, None] == np.arange(len(self.class_names))
        return found

    @cached_property
    def _largest(self) -> NDArray[np.int64]:
        """[n] int64, by torch, which scored the run: NumPy may choose another of several equal logits."""
        import torch

        chosen: NDArray[np.int64] = torch.from_numpy(self.logits).argmax(1).numpy()
        return chosen

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """[n, C] float64, from the logits as `fedimb.serverapp.evaluate` computes them."""
        import torch

        from fedimb.evaluation.probabilities import probabilities_of

        return probabilities_of(torch.from_numpy(self.logits), self.several)

    def confusion(self) -> NDArray[np.int64]:
        """The confusion matrix of these scores, [C, C], or [C, 2, 2] if rows have several labels."""
        if self.several:
            return label_confusion(known_cells(np.asarray(self.labels, np.uint8)), self.predicted)
        return confusion_matrix(self.labels.astype(np.int64), self._largest, len(self.class_names))

    def write(self, folder: "RunFolder", label: str) -> None:
        """Write them as an artifact of the run's row ``label``, atomically. Integers take as few bytes as they need."""
        facts = {"format": _FORMAT, "test_set": self.test_set, "class_names": self.class_names, "row": label}
        parts: dict[str, Any] = {"rows": _small(self.rows), "labels": _small(self.labels), "logits": self.logits}
        if self.patients is not None:
            parts["patients"] = _small(self.patients)
        data = io.BytesIO()
        np.savez(data, facts=np.array(json.dumps(facts)), **parts)
        folder.artifact(_name(label), data.getvalue())

    @staticmethod
    def read(run: Path, label: str) -> "RowScores":
        """Read what `write` wrote into the folder ``run``.

        Raises:
            FileNotFoundError: the run has no such file.
            FedimbError: the file is damaged, or not as it was sealed.
        """
        from fedimb.rundir.folder import RunFolder

        path = run / "artifacts" / _name(label)
        data = RunFolder(run).read(f"artifacts/{_name(label)}")
        if data is None:
            raise FileNotFoundError(path)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as held:
                facts = json.loads(str(held["facts"]))
                if facts["format"] != _FORMAT:
                    raise ValueError(f"format {facts['format']}, this fedimb reads {_FORMAT}")
                rows, labels, logits = held["rows"].astype(np.int64), held["labels"], held["logits"]
                patients = held["patients"].astype(np.int64) if "patients" in held else None
            names = tuple(facts["class_names"])
            wide = (len(rows), len(names))
            if logits.shape != wide or logits.dtype != np.float32 or labels.shape not in (wide, wide[:1]):
                raise ValueError("its arrays do not fit together")
            labels = labels.astype(np.int64 if labels.ndim == 1 else np.uint8)
            return RowScores(rows, labels, logits, patients, facts["test_set"], names)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FedimbError(f"{path} is damaged ({reason}); run the configuration again") from None


def hash_of_rows(store: Store, rows: NDArray[np.int64]) -> str:
    """sha256 (hex) of what a model is tested on: the rows' values as the source gives them, their labels, the classes.

    It does not depend on the file's name or place, on how training rows were cut, or on row numbers.
    """
    facts = [list(store.class_names), store.task, list(store.x.shape[1:]), str(store.x.dtype), store.scale, len(rows)]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for start in range(0, len(rows), _CHUNK):
        chosen = rows[start : start + _CHUNK]
        for column in (store.x, store.y, store.targets):
            if column is not None:
                digest.update(np.ascontiguousarray(column[chosen]).tobytes())
    return digest.hexdigest()


def _name(label: str) -> str:
    return f"rows/{label.replace('/', '_')}/{FILE}"


def _small(numbers: NDArray[np.generic]) -> NDArray[np.generic]:
    """Whole numbers of at least 0 in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
