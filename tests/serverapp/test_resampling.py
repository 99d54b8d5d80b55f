"""Runs whose clients resample their rows: what is counted, what is corrected, what leaves."""

import json

import numpy as np
import pytest
from seals import unseal
from small_runs import config, launch_in, weights_sha

from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError
from fedimb.study.computed import compute

TABLE = ("data=synthetic_table", "data.source.rows=600", "data.source.features=6", "engine=inline", "rounds=2")


def smoted(counts):
    """Counts [K, C] of the clients -> those after SMOTE: a client's classes of two rows or more are as its largest."""
    return np.where((counts > 1) & ((counts > 0).sum(1, keepdims=True) > 1), counts.max(1, keepdims=True), counts)


def test_the_prior_counts_what_is_trained_on_and_nothing_more_is_sent(tmp_path):
    real = launch_in(tmp_path, *TABLE, "calibration=la_post")
    clear, secure = (
        launch_in(tmp_path, *TABLE, "calibration=la_post", "resampler=smote", f"prior.provenance={provenance}")
        for provenance in ("clear_sum", "secure_sum")
    )
    kept = [json.loads((unseal(run.folder) / "result.json").read_text()) for run in (real, clear, secure)]
    own = config(*TABLE)
    counts = prepare(own.data, own.partition, own.clients.count, own.seed).counts
    assert kept[0]["prior"]["counts"] == counts.sum(axis=0).tolist()
    assert kept[1]["prior"]["counts"] == smoted(counts).sum(axis=0).tolist()
    assert kept[2]["prior"]["counts"] == kept[1]["prior"]["counts"]
    assert clear.up_bytes == real.up_bytes  # what SMOTE made stays
    assert weights_sha(clear) == weights_sha(secure) != weights_sha(real)


def test_a_client_weighs_as_many_rows_and_takes_as_many_steps_as_without(tmp_path):
    runs = [launch_in(tmp_path, *TABLE, f"resampler={name}") for name in ("none", "smote", "enn")]
    lines = [(unseal(run.folder) / "metrics.jsonl").read_text().splitlines() for run in runs]
    steps = [[json.loads(line)["metrics"].get("train/steps") for line in one] for one in lines]
    assert steps[0] == steps[1] == steps[2]
    assert len({weights_sha(run) for run in runs}) == 3


def test_a_client_that_trains_alone_resamples_too():
    plain, smote = (compute("local", config(*TABLE, f"resampler={name}"))["rows"] for name in ("none", "smote"))
    for row in ("local_mean", "local_best"):
        assert plain[row]["scores"] != smote[row]["scores"]
    assert plain["local_mean"]["steps"] == smote["local_mean"]["steps"]
    assert plain["local_mean"]["labels"] == smote["local_mean"]["labels"] >= smote["local_best"]["labels"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["resampler=smote", "calibration=la_post", "prior.view=real"], "double correction: resampler 'smote'"),
        (["resampler=enn", "loss=prcbl", "prior.view=real"], "set prior.view=train"),
        (["resampler=smote", "loss=fedlc", "prior.view=real"], "double correction"),
        (["resampler=smote", "loss=weighted_ce", "prior.provenance=oracle"], "set prior.provenance=clear_sum"),
        (["resampler=smote", "loss=weighted_ce", "prior.provenance=dp_sum"], "the noise is too small"),
        (["resampler=smote", "strategy=coreset"], "use strategy=plain"),
        (["resampler=smote", "calibration=la_post", "calibration.la_post.tau=temperature"], "for another class prior"),
        (["resampler=smot"], "smote"),
        (["resampler=smote", "resampler.k=0"], "k=0"),
    ],
)
def test_what_would_correct_twice_or_cannot_work_is_refused_before_work(words, says):
    with pytest.raises(ConfigError, match=says):
        config(*words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["resampler=smote"], r"these data are \(1, 8, 8\); give embeddings"),
        (["resampler=smote_nc", *TABLE], "these data have none; use resampler=smote"),
    ],
)
def test_data_that_a_rule_cannot_work_on_are_refused_before_there_is_a_run_folder(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *words, "engine=inline")
    assert not list(tmp_path.rglob("config.yaml"))


def test_the_default_keeps_the_hash_and_the_label_of_a_run():
    from fedimb.config.load import config_sha, row_label

    plain, named = config(*TABLE), config(*TABLE, "resampler=none")
    assert config_sha(plain) == config_sha(named)
    assert "resampler" not in row_label(plain, "none")
    assert row_label(config(*TABLE, "resampler=enn"), "none") == "enn"
