"""Feature selection: what is counted, what is dropped, that dropped columns have no say."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_runs import config, launch_in

from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError
from fedimb.selection.mutual_information import bin_counts, largest, mutual_information

TABLE = ("data=synthetic_table", "data.source.rows=600", "data.source.features=6", "engine=inline", "rounds=2")
OWN = (*TABLE, "strategy=feature_select", "model=logistic")


def about(result):
    return json.loads((result.folder / "artifacts" / "feature_select.json").read_text())


def weights(result):
    return load_file(result.folder / "artifacts" / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, own = tmp_path_factory.mktemp("runs"), "strategy.feature_select."
    words = ([], [f"{own}secure=false", f"{own}min_count=1"], ["local.momentum=0.9", "model=mlp"])
    return [launch_in(folder, *OWN, *one) for one in words]


def test_columns_are_chosen_by_the_mutual_information_of_all_rows_together(runs):
    own = config(*OWN)
    federation = prepare(own.data, own.partition, own.clients.count, own.seed)
    parts = [federation.client(k).tensors("train") for k in range(federation.n_clients)]
    x = np.concatenate([x.numpy() for x, _ in parts]).astype(np.float64)
    y = np.concatenate([y.numpy() for _, y in parts])
    counts = bin_counts((x - x.mean(axis=0)) / x.std(axis=0), y, federation.n_classes, 10)
    all_classes = mutual_information(counts)
    counts[np.bincount(y, minlength=federation.n_classes) < 5] = 0
    wanted = mutual_information(counts)
    secure, clear, _ = map(about, runs)
    assert secure["values"] == pytest.approx(wanted, abs=2e-3)  # a value on a bin's edge may lie on either side
    assert secure["kept"] == np.flatnonzero(largest(secure["values"], 3)).tolist()
    assert clear["values"] == pytest.approx(all_classes, abs=2e-3)  # min_count=1


@pytest.mark.parametrize(("at", "name"), [(0, "head.weight"), (1, "head.weight"), (2, "body.1.weight")])
def test_dropped_columns_have_no_weight_and_the_others_are_trained(runs, at, name):
    kept = about(runs[at])["kept"]
    weight = weights(runs[at])[name]
    assert len(kept) == 3
    assert (np.delete(weight, kept, axis=1) == 0).all()
    assert (weight[:, kept] != 0).any(axis=0).all()


def test_elimination_keeps_the_columns_with_the_largest_weights_step_by_step(tmp_path):
    rfe = ("strategy.feature_select.rule=rfe", "strategy.feature_select.keep=0.3", "rounds=4")
    found = launch_in(tmp_path, *OWN, *rfe)
    told = about(found)
    assert told["kept"] == np.flatnonzero(largest(told["values"], 2)).tolist()
    assert sum(value == 0 for value in told["values"]) == 2  # six columns, four after the first step
    weight = weights(found)["head.weight"]
    assert (np.delete(weight, told["kept"], axis=1) == 0).all()
    assert (weight[:, told["kept"]] != 0).any()


def test_what_an_inner_method_makes_has_no_weight_for_dropped_columns_either(tmp_path):
    inner = ("strategy=[feature_select,c2tc]", "strategy.c2tc.min_count=3", "strategy.c2tc.epochs=2")
    found = launch_in(tmp_path, *OWN, *inner)
    weight, kept = weights(found)["head.weight"], about(found)["kept"]
    assert (np.delete(weight, kept, axis=1) == 0).all()
    assert (weight[:, kept] != 0).any()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.head=cosine"], "with head=linear"),
        (["strategy.feature_select.keep=1"], "keep=1 drops no column"),
        (["privacy.clip=1"], r"set privacy\.clip=null"),
        (["strategy.feature_select.rule=rfe"], "use up all rounds=2"),
        (["clients.count=1"], "hides nothing with one client"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *OWN, *words)
    assert not list(tmp_path.rglob("config.yaml"))
