"""No client above its share; without one above it, bounds change no bit."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from small_runs import config, launch_in, weights_sha

from fedimb.config.load import config_sha
from fedimb.engine.flower_private import ensure_identity, number
from fedimb.engine.lanes import gather
from fedimb.records import array_record
from fedimb.serverapp.class_prior import prior_from_counts
from fedimb.serverapp.finish import scores_without
from fedimb.serverapp.influence import bound, capped, capped_counts


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=8), st.floats(0.05, 1))
def test_no_weight_is_above_the_share_and_the_small_ones_stay(weights, share):
    found = capped(weights, share)
    present = [w for w in found if w > 0]
    assert all(new <= old for new, old in zip(found, weights, strict=True))
    if len(present) < 3:
        assert found == weights
    elif share * len(present) > 1.0001:
        assert max(found) <= share * sum(found) * (1 + 1e-9)
        cut = [new for new, old in zip(found, weights, strict=True) if new < old]
        assert max(cut, default=0) - min(cut, default=0) <= 1e-9 * max(cut, default=1)
    else:  # the share cannot be reached
        assert max(present) <= max(share * sum(found), min(present)) * (1 + 1e-9)


def test_with_two_there_is_no_protection():
    assert capped([1e15, 1], 0.5) == [1e15, 1]
    assert capped([1e15, 1, 2], None) == [1e15, 1, 2]
    assert capped([100, 5, 5, 5], 0.01) == [5, 5, 5, 5]


def test_counts_of_one_client_are_scaled_down():
    counts = np.array([[900, 100], [10, 20], [30, 40]])
    assert capped_counts(counts, 0.5).tolist() == [[90, 10], [10, 20], [30, 40]]
    assert counts[0, 0] == 900
    assert capped_counts(counts, None) is counts
    assert capped_counts(counts[:0], 0.5).shape == (0, 2)


def outcome_of(updates, weights):
    ensure_identity()
    sent = {}
    for client in range(len(updates)):
        sent[client] = Message(RecordDict({"arrays": array_record({"w": np.zeros(2, np.float32)})}), 1, "train")
        number(sent[client], str(client + 1))
    replies = []
    for client, (update, weight) in enumerate(zip(updates, weights, strict=True)):
        own = {"arrays": array_record({"w": np.full(2, update, np.float32)})}
        own["metrics"] = MetricRecord({"num-examples": float(weight), "train_loss": 0.5})
        replies.append((client, Message(RecordDict(own), reply_to=sent[client])))
    return gather(replies, False, sent), sent


def settings(**own):
    return SimpleNamespace(max_weight_share=None, max_update_ratio=None).__class__(
        **({"max_weight_share": None, "max_update_ratio": None} | own)
    )


def test_a_weight_above_the_share_is_cut_in_the_mean_and_said():
    outcome, said = bound(*outcome_of([1, 2, 50], [10, 20, 1e15]), True, settings(max_weight_share=0.5))
    assert outcome.total.weight == 60
    assert outcome.total.model.mean()["w"].tolist() == [(10 + 40 + 1500) / 60] * 2
    assert said == {2: "weight 1e+15 cut to 30 (clients.max_weight_share)"}


def test_an_update_longer_than_the_bound_is_cut_to_it():
    outcome, said = bound(*outcome_of([1, 2, 50, 1], [1, 1, 1, 1]), False, settings(max_update_ratio=2.0))
    kept = [reply.content["arrays"]["w"].numpy()[0] for reply in outcome.replies]
    assert kept == pytest.approx([1, 2, 3, 1])
    assert said[2].startswith("update of norm 70.7 cut to 4.24")


def test_a_prior_of_resampled_rows_is_cut_by_what_it_counts_or_by_what_the_mean_weighs():
    # Rows 60, 30, 30 of two classes; the first client's 6 rare rows become 54.
    counts, rows = np.array([[54.0, 54.0], [30, 0], [15, 15]]), np.array([60, 30, 30])
    cut = ("clients.max_weight_share=0.4", "loss=balanced_softmax", "resampler=smote")
    data = prior_from_counts(counts, config(*cut), rows)
    assert data.tolist() == [20 + 30 + 15, 20 + 15]  # 108 are more than 0.4 of 168: 40 of 100 stay
    effective = prior_from_counts(counts, config(*cut, "prior.weighting=effective"), rows)
    weights = np.array(capped([60, 30, 30], 0.4)) / 100  # as of the mean: 40, 30, 30
    assert effective.sum() == pytest.approx(counts.sum())
    assert effective / effective.sum() == pytest.approx([0.2 + 0.3 + 0.15, 0.2 + 0.15])
    assert weights.tolist() == pytest.approx([0.4, 0.3, 0.3])
    uncut = prior_from_counts(counts, config(*cut[1:], "prior.weighting=effective"), rows)
    assert uncut / uncut.sum() == pytest.approx([0.25 + 0.25 + 0.125, 0.25 + 0.125])
    same = prior_from_counts(counts, config(*cut[1:3]), None)
    assert same.tolist() == [99, 69]


def test_a_cut_is_told_in_the_runs_journal(tmp_path):
    result = launch_in(tmp_path, "engine=inline", "rounds=1", "clients.count=4", "clients.max_weight_share=0.26")
    lines = [json.loads(line) for line in (result.folder / "journal.jsonl").read_text().splitlines()]
    cut = [line for line in lines if line.get("event") == "cut"]
    assert cut
    assert all(line["where"] == "round 1" and "(clients.max_weight_share)" in line["reason"] for line in cut)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("fedavg", "fedmedian", "scaffold")]


@pytest.mark.parametrize("aggregator", ["fednova", *SLOW])
def test_a_bound_that_nobody_reaches_changes_no_bit(tmp_path, aggregator):
    words = ("engine=inline", f"aggregator={aggregator}", "rounds=2", "clients.count=4")
    own = ("clients.max_weight_share=1.0", "clients.max_update_ratio=1000.0")
    assert weights_sha(launch_in(tmp_path, *words)) == weights_sha(launch_in(tmp_path, *words, *own))


def test_without_a_bound_the_hash_of_a_configuration_is_the_old_one():
    assert config_sha(config()) == config_sha(config("clients.max_weight_share=null"))
    assert config_sha(config()) != config_sha(config("clients.max_weight_share=0.5"))


def test_a_matrix_that_one_site_made_up_shows_in_the_scores_without_it():
    honest, made_up = np.array([[8, 2], [6, 4]]), np.array([[0, 10], [0, 10]])
    by_client = {"none": {0: honest, 1: honest, 2: made_up * 2}}
    every = {"of_clients": by_client.__getitem__, "hidden_of_sites": np.zeros(2, bool)}
    evaluator = SimpleNamespace(labels={"fedavg": "none"}, **every)
    found = scores_without(evaluator, "site{}".format, config(), (1,))["fedavg"]
    assert found["site2"] == {"macro_recall": pytest.approx(0.6), "minority_recall": pytest.approx(0.4), "rows": 40}
    assert abs(found["site0"]["minority_recall"] - found["site1"]["minority_recall"]) == 0
    assert found["site0"]["minority_recall"] - found["site2"]["minority_recall"] > 0.3
