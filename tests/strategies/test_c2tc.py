"""One-shot condensation: what a client sends, what the server makes of it, what it refuses."""

import math

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_runs import config, launch_in

from fedimb.clients.c2tc import by_class
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError, RunFailed
from fedimb.rundir.folder import RunFolder
from fedimb.selection.condensation import condense
from fedimb.serverapp.server import Server
from fedimb.strategies.c2tc import pooled

TABLE = ("data=synthetic_table", "data.source.rows=600", "data.source.features=6", "engine=inline", "model=logistic")
OWN = (*TABLE, "strategy=c2tc", "strategy.c2tc.keep=0.2", "strategy.c2tc.min_count=3", "strategy.c2tc.epochs=20")


def test_groups_are_laid_out_by_class_and_come_back_as_rows():
    points = torch.tensor([[0.0, 0], [0, 2], [8, 0], [8, 2], [5, 5], [5, 7]])
    found = by_class(condense(points, torch.tensor([0, 0, 0, 0, 2, 2]), 3, floor=2), n_classes=4)
    assert found["centres"].shape == (4, 2, 2)
    assert found["centres"][0].tolist() == [[0, 1], [8, 1]]
    assert found["centres"][2, 0].tolist() == [5, 6]
    assert np.isnan(found["centres"][[1, 3]]).all()
    assert np.isnan(found["centres"][2, 1]).all()
    assert found["rows"].tolist() == found["people"].tolist() == [[2, 2], [0, 0], [2, 0], [0, 0]]
    x, y = pooled([found, found], weighted=True, shape=(2, 1))
    assert x[:, :, 0].tolist() == ([[0, 1]] * 2 + [[8, 1]] * 2 + [[5, 6]] * 2) * 2
    assert y.tolist() == [0, 0, 0, 0, 2, 2] * 2
    assert pooled([found], weighted=False, shape=(2,))[1].tolist() == [0, 0, 2]
    found["centres"][0, 0, 1] = np.inf
    assert pooled([found], weighted=False, shape=(2,))[1].tolist() == [0, 2]


def test_the_model_is_trained_on_the_clients_centroids_and_no_weights_travel(tmp_path):
    result = launch_in(tmp_path, *OWN, "calibration=[none,la_post]")
    own = config(*OWN)
    federation = prepare(own.data, own.partition, own.clients.count, own.seed)
    sent, held = [], np.zeros(federation.n_classes)
    for client in range(federation.n_clients):
        x, y = federation.client(client).tensors("train")
        found = condense(x, y, math.ceil(0.2 * len(y)), floor=3)
        assert not len(found.people) or int(found.people.min()) >= 3
        sent.append(by_class(found, federation.n_classes))
        held += sent[-1]["rows"].sum(axis=1)
    server = Server(own, federation)
    wanted = server.train(server.model(), *pooled(sent, True, federation.input_shape), 20)
    found = load_file(result.folder / "artifacts" / "model" / "model.safetensors")
    assert wanted.keys() == found.keys()
    assert all(np.array_equal(found[name], value) for name, value in wanted.items())
    assert result.prior_counts.tolist() == held.tolist()  # what la_post corrects for is what was trained on
    lines = [line["metrics"] for line in RunFolder(result.folder).metrics()]
    line = next(line for line in lines if "comm/up_bytes" in line)
    assert line["comm/up_bytes"] == line["comm/up_bytes/c2tc_centroids"]  # nobody is asked for counts besides


def test_what_trains_after_the_centroids_is_corrected_for_the_clients_rows(tmp_path):
    result = launch_in(tmp_path, *OWN, "strategy.c2tc.use=init", "calibration=[none,la_post]", "rounds=1")
    assert result.prior_counts.tolist() == result.train_counts.tolist()


def test_a_floor_that_nobody_reaches_is_said(tmp_path):
    with pytest.raises(RunFailed, match="no client has min_count=5000 people of any class; lower it"):
        launch_in(tmp_path, *OWN, "strategy.c2tc.min_count=5000")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["strategy.c2tc.min_count=1"], "min_count=1"),
        (["strategy=[c2tc,coreset]"], "use=only trains no client"),
        (["privacy.clip=1"], "so it protects nothing"),
    ],
)
def test_what_would_show_a_record_or_do_nothing_is_refused(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *OWN, *words)
