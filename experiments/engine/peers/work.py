"""The work that every program does, read from a folder that `export.py` wrote with fedimb; needs only numpy and torch.

Everything that decides how much is computed is written down: each client's rows, the clients of every round, initial
weights, batch size, epochs and learning rate. `Work.found` refuses a program that made another number of steps.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import NETS
from torch import Tensor, nn

_TEST_ROWS = 256


class Work:
    """One case's work.

    Args:
        folder: written by `export.py`.

    Attributes:
        rounds, epochs, batch_size: whole numbers.
        optimiser: keyword arguments of ``torch.optim.SGD``, with ``lr``.
        cohorts: client ids of each round.
        ends: epoch seconds at the end of each round; the program appends them with `round_done`.
        steps: local steps made; the program counts them.
    """

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self.folder = Path(folder)
        facts: dict[str, Any] = json.loads((self.folder / "work.json").read_text())
        self.rounds, self.epochs, self.batch_size = facts["rounds"], facts["epochs"], facts["batch_size"]
        self.optimiser: dict[str, float] = facts["optimiser"]
        self.cohorts: list[list[int]] = facts["cohorts"]
        self._model, self.classes, self.shape = dict(facts["model"]), facts["classes"], facts["shape"]
        self._net = NETS[self._model.pop("name")]
        self._x = np.load(self.folder / "x.npy", mmap_mode="r")
        self._y = np.load(self.folder / "y.npy", mmap_mode="r")
        self._starts = np.load(self.folder / "starts.npy")
        self.ends: list[float] = []
        self.steps = 0

    @property
    def clients(self) -> int:
        return len(self._starts) - 1

    def rows(self, client: int) -> int:
        """Number of training rows of a client."""
        return int(self._starts[client + 1] - self._starts[client])

    def data(self, client: int) -> tuple[Tensor, Tensor]:
        """(x, y) of a client, read from disk: float32 [n, *shape], int64 [n]."""
        part = slice(self._starts[client], self._starts[client + 1])
        return torch.from_numpy(np.array(self._x[part])), torch.from_numpy(np.array(self._y[part]))

    def blank_model(self) -> nn.Module:
        """The model with random weights."""
        return self._net(self.shape, self.classes, **self._model)

    def model(self) -> nn.Module:
        """The model with the initial weights.

        Raises:
            ValueError: its logits are not those of fedimb's model.
        """
        model = self.blank_model()
        saved = np.load(self.folder / "initial.npz")
        model.load_state_dict({name[2:]: torch.from_numpy(saved[name]) for name in saved.files if name[:2] == "w:"})
        with torch.no_grad():
            off = float((model(torch.from_numpy(saved["inputs"])) - torch.from_numpy(saved["logits"])).abs().max())
        if not off < 1e-4:
            raise ValueError(f"nets.py is not fedimb's model: logits differ by {off}")
        return model

    def planned_steps(self) -> int:
        """Local steps of all rounds."""
        steps = [math.ceil(self.rows(k) / self.batch_size) for cohort in self.cohorts for k in cohort]
        return self.epochs * sum(steps)

    def round_done(self) -> None:
        self.ends.append(time.time())

    @torch.no_grad()
    def found(self, model: nn.Module, out: str) -> None:
        """Score the model on the test rows and write the findings.

        Raises:
            ValueError: another number of rounds or local steps than the work has.
        """
        if (len(self.ends), self.steps) != (self.rounds, self.planned_steps()):
            made = f"{len(self.ends)} rounds and {self.steps} local steps"
            raise ValueError(f"{made}, the work has {self.rounds} and {self.planned_steps()}")
        x = torch.from_numpy(np.load(self.folder / "test_x.npy"))
        y = torch.from_numpy(np.load(self.folder / "test_y.npy"))
        model.eval()
        hit = torch.cat([model(part).argmax(1) for part in x.split(_TEST_ROWS)]) == y
        support = torch.bincount(y, minlength=self.classes)
        hits = torch.bincount(y[hit], minlength=self.classes)
        recall = hits[support > 0].double() / support[support > 0]
        figures = {"accuracy": float(hit.double().mean()), "macro_recall": float(recall.mean())}
        Path(out).write_text(json.dumps(figures | {"ends": self.ends, "steps": self.steps}))
