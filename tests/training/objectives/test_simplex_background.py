"""Rows of none of the classes, kept away from the vertices of the simplex."""

import contextlib

import numpy as np
import pytest
import torch
from small_runs import config, launch_in

from fedimb.errors import ConfigError, DataError
from fedimb.models.heads import open_set_score
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.dm_simplex import DynamicMarginSimplex
from fedimb.training.objectives.simplex_background import SimplexBackground, background_rows, background_term
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


def test_by_hand():
    # d^2 of two rows to their vertices: 10 and 30; of background rows to these: 50, 500 and 0, 100
    logits = torch.tensor([[-10.0, -900.0, -900.0], [-900.0, -900.0, -30.0]])
    background = torch.tensor([[-50.0, -1.0, 0.0], [-500.0, -1.0, -100.0]])
    pairs = [48 + 10 - 50, 0, min(60, 48 + 30), 0]
    found = background_term(logits, torch.tensor([0, 2]), background, margin=48.0, most=60.0)
    assert float(found) == pytest.approx(sum(pairs) / (2 * 2 * 2))


def test_training_with_it_moves_the_background_away(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator) + 3 * torch.eye(2)[torch.arange(60) % 2]
    y = torch.arange(60) % 2
    away = torch.randn(40, 2, generator=generator) - 4
    np.savez(tmp_path / "background.npz", x=away.numpy())
    known = []
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        model = MLP(2, (2,), hidden=[16], head="simplex")
        loss, more = (
            DynamicMarginSimplex(np.array([30, 30])),
            SimplexBackground(str(tmp_path / "background.npz"), weight),
        )
        spec = TrainSpec("train", 60, 20, "sgd", 0.002, 0.0, 0.0, loss, Shuffle(), (more,))
        result = train_locally(model, x, y, spec, torch.Generator().manual_seed(0))
        assert np.isfinite(result.loss)
        known.append(float(open_set_score(model(away).detach()).mean()))
    assert known[1] < known[0]


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros((0, 3), np.float32), r"x of float32 \[0, 3\]: give rows of shape \[3\]"),
        (np.zeros((5, 4), np.float32), r"give rows of shape \[3\]"),
        (np.full((5, 3), np.nan), "not finite"),
    ],
)
def test_files_that_hold_no_such_rows_are_refused(tmp_path, x, says):
    np.savez(tmp_path / "b.npz", x=x)
    with pytest.raises(ConfigError, match=says):
        background_rows(tmp_path / "b.npz", (3,))
    np.savez(tmp_path / "c.npz", rows=x)
    with pytest.raises(ConfigError, match="save the background rows as x"):
        background_rows(tmp_path / "c.npz", (3,))
    np.savez(tmp_path / "d.npz", x=np.full((2, 3), 51, np.uint8))
    assert background_rows(tmp_path / "d.npz", (3,)) == pytest.approx(np.full((2, 3), 0.2))


def test_pictures_of_another_range_than_the_clients_are_refused(tmp_path):
    real = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model, none = MLP(2, (1, 8, 8), hidden=[4], head="simplex"), torch.zeros(40, dtype=torch.int64)
    path = tmp_path / "background.npz"
    bytes_of = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8))
    for x, refused in ((bytes_of.astype(np.float32), True), (bytes_of.astype(np.uint8), False)):
        np.savez(path, x=x)
        term = SimplexBackground(str(path))
        with pytest.raises(DataError, match="from 0 to 1: save") if refused else contextlib.nullcontext():
            term.before_training(model, real.round(), none, torch.Generator())


def test_a_run_refuses_it_before_work_and_trains_with_it(tmp_path):
    own = ["engine=inline", "model=mlp", "loss=dm_simplex", "local.lr=0.01", "rounds=1"]

    def words(path):
        return f"aggregator.objectives=[{{name: simplex_background, path: {path}}}]"

    with pytest.raises(ConfigError, match=r"model\.head=simplex"):
        config(*own, words("b.npz"))
    own.append("model.head=simplex")
    with pytest.raises(DataError, match="no file or folder"):
        launch_in(tmp_path, *own, words(tmp_path / "none.npz"))
    np.savez(tmp_path / "wrong.npz", x=np.zeros((4, 8), np.float32))
    with pytest.raises(ConfigError, match=r"give rows of shape \[1, 8, 8\]"):
        launch_in(tmp_path, *own, words(tmp_path / "wrong.npz"))
    assert not list(tmp_path.rglob("config.yaml"))
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 1, 8, 8), np.uint8))
    assert launch_in(tmp_path, *own, words(tmp_path / "b.npz")).rows
