"""The greedy ensemble end to end: the mean of chosen sites' models, of whatever network, as one model that predicts."""

import json

import numpy as np
import pytest
import torch
from small_runs import launch_in

import fedimb
from fedimb.clientapp.private_weights import STATE
from fedimb.clientapp.state import StateStore
from fedimb.data.federation import Federation
from fedimb.errors import ConfigError
from fedimb.records import load_arrays, to_numpy

ALONE = "clients.private=['*']"
WORDS = ("engine=inline", "strategy=greedy_ensemble", "data.public=5", "clients.count=3", "partition=iid", "model=mlp")
DEEP = "clients.models={kinds: {deep: {name: mlp, hidden: [24, 12]}}, at: {1: deep}}"


def test_the_ensemble_is_the_weighted_mean_of_its_members_and_loads_as_one_model(tmp_path):
    result = launch_in(tmp_path, *WORDS, ALONE, DEEP, "rounds=2", "strategy.greedy_ensemble.score=log_loss")
    about = json.loads((result.folder / "artifacts" / "ensemble.json").read_text())
    assert sum(about["weights"].values()) == pytest.approx(1)
    assert about["reached"] >= about["best_alone"]
    model = fedimb.load_model(result.folder)
    x = Federation.load(result.folder).client(0).tensors("train")[0]
    total = torch.zeros(len(x), 10)
    info = load_arrays(result.folder / "checkpoint.safetensors")[1]
    store = StateStore(result.folder / "clients")
    for name, share in about["weights"].items():
        client = name.removeprefix("client-")
        member = model.classifier.members[client]
        own = to_numpy(store.load(int(client), int(info["versions"][client])).array_records[STATE])
        for key, value in member.named_parameters():
            np.testing.assert_array_equal(value.detach().numpy(), own[key])
        with torch.no_grad():
            total += share * member(x).softmax(dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model.classifier(x).exp(), total)
    assert result.rows[0].copies == 1  # one model: each test row once
    assert result.rows[0].confusion.sum() == len(Federation.load(result.folder).test)


def test_a_site_says_nothing_of_a_class_that_it_does_not_annotate(tmp_path):
    words = [
        "partition=annotated_subsets",
        "partition.classes=[6,8]",
        "rounds=1",
        "strategy.greedy_ensemble.score=log_loss",
    ]
    result = launch_in(tmp_path, *WORDS, ALONE, *words)
    model = fedimb.load_model(result.folder).classifier
    annotated = Federation.load(result.folder).labels.annotated
    for position, client in enumerate(model.members):
        assert model.unknown[position].tolist() == (~annotated[int(client)]).tolist()
    assert model.unknown.any()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], r"set clients\.private=\['\*'\]"),
        ([ALONE, "data.public=null"], r"set data\.public to its rows per class"),
        ([ALONE, "privacy.clip=1.0"], r"models leave without privacy\.clip"),
        ([ALONE, "data.test={name: none}", "data.validation=0.2"], "no model like the ensemble to score it with"),
        ([ALONE, "calibration=tau"], "an ensemble has none; use calibration=none"),
    ],
)
def test_what_cannot_become_an_ensemble_is_refused(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *WORDS, *words)
    assert not list(tmp_path.glob("runs/*/*"))
