"""The inline engine, and everything about a run that does not depend on the engine."""

import json
import logging

import numpy as np
import pytest
from flwr.app import RecordDict
from small_runs import SMALL, config, launch_in, weights_sha

import fedimb
from fedimb.by_reference import view
from fedimb.clientapp.local_training import LocalTraining
from fedimb.clientapp.runtime import ClientRuntime
from fedimb.engine.grid import deliver
from fedimb.errors import ConfigError, RunFailed, error_from
from fedimb.rundir.folder import RunFolder
from fedimb.training.losses.ce import CrossEntropy


@pytest.fixture(scope="module")
def three_rows(tmp_path_factory):
    return launch_in(tmp_path_factory.mktemp("rows"), "engine=inline", "calibration=[none,la_post,tau]")


def test_a_run_leaves_everything_a_reader_needs(three_rows):
    folder = three_rows.folder
    assert [row.label for row in three_rows.rows] == ["fedavg", "la_post", "tau"]
    assert RunFolder(folder).status() == "finished"
    for name in ("config.json", "partition.npz", "partition.json", "journal.jsonl", "metrics.jsonl", "result.json"):
        assert (folder / name).stat().st_size > 0, name
    assert three_rows.confusion.sum() == 600


def test_the_rows_share_one_checkpoint_and_differ_in_scores(three_rows):
    lines = RunFolder(three_rows.folder).metrics()
    assert {line["row"] for line in lines} == {"fedavg", "la_post", "tau"}
    assert len(lines) == 9
    losses = {line["step"]: line["metrics"]["train/loss"] for line in lines if line["row"] == "tau"}
    assert losses == {line["step"]: line["metrics"]["train/loss"] for line in lines if line["row"] == "fedavg"}
    assert not np.array_equal(three_rows.rows[0].confusion, three_rows.rows[1].confusion)


def test_the_headline_is_the_mean_of_the_last_k_rounds(three_rows):
    lines = RunFolder(three_rows.folder).metrics()
    scored = [line["metrics"]["test/macro_recall"] for line in lines if line["row"] == "la_post"]
    assert three_rows.rows[1].metrics["macro_recall"] == pytest.approx(np.mean(scored))
    assert three_rows.rows[1].final["macro_recall"] == pytest.approx(scored[-1])


def test_the_saved_model_scores_what_the_run_scored(three_rows):
    from fedimb.data.federation import Federation

    federation = Federation.load(three_rows.folder)
    predicted = fedimb.load_model(three_rows.folder)(federation.store.x[federation.test]).argmax(1).numpy()
    assert int((predicted == federation.store.y[federation.test]).sum()) == int(three_rows.confusion.trace())


def test_bytes_are_the_payload_of_every_message(three_rows):
    cfg = config("calibration=[none,la_post,tau]")
    model = 64 * 48 + 48 + 48 * 10 + 10
    lines = [line["metrics"] for line in RunFolder(three_rows.folder).metrics() if line["row"] == "fedavg"]
    assert lines[0]["comm/up_bytes/class_counts"] == cfg.clients.count * 10 * 8
    assert lines[0]["comm/up_bytes/train"] == pytest.approx(cfg.clients.count * model * 4, rel=0.01)
    assert lines[0]["comm/up_bytes/train"] > cfg.clients.count * model * 4
    assert three_rows.up_bytes == sum(line["comm/up_bytes"] for line in lines)


def test_a_calibration_at_the_server_costs_the_clients_nothing_but_one_count(three_rows):
    lines = [line["metrics"] for line in RunFolder(three_rows.folder).metrics() if line["row"] == "la_post"]
    model = 64 * 48 + 48 + 48 * 10 + 10
    assert lines[-1]["comm/down_bytes/train"] < 5 * (model * 4 + 10 * 8), "no prior travels with the model"


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    first, again = (launch_in(tmp_path, "engine=inline", "seed=4") for _ in range(2))
    other = launch_in(tmp_path, "engine=inline", "seed=5")
    assert weights_sha(first) == weights_sha(again) != weights_sha(other)
    assert again.folder.name.endswith("-2")


def test_a_run_leaves_the_callers_random_state_alone(tmp_path):
    import torch

    torch.manual_seed(11)
    before = torch.get_rng_state()
    launch_in(tmp_path, "engine=inline", "rounds=1")
    assert torch.equal(before, torch.get_rng_state())


def test_fedprox_pulls_towards_the_global_model(tmp_path):
    plain = launch_in(tmp_path, "engine=inline")
    none = launch_in(tmp_path, "engine=inline", "aggregator=fedprox", "aggregator.proximal_mu=0.0")
    strong = launch_in(tmp_path, "engine=inline", "aggregator=fedprox", "aggregator.proximal_mu=1.0")
    assert weights_sha(plain) == weights_sha(none) != weights_sha(strong)


def test_validation_rows_are_scored_at_the_clients(tmp_path):
    result = launch_in(tmp_path, "engine=inline", "data.validation=0.3", "data.imbalance_factor=4")
    metrics = RunFolder(result.folder).metrics()[-1]["metrics"]
    assert 0 <= metrics["client/worst_minority_recall"] <= metrics["client/minority_recall"] <= 1


def test_simulated_trouble_is_seeded_counted_and_survived(tmp_path, caplog):
    trouble = ("clients.availability=0.8", "clients.dropout=0.2", "clients.slow=0.4", "clients.deadline_s=1.0",
               "clients.min_reply_fraction=0.0", "clients.count=8", "rounds=4")  # fmt: skip
    caplog.set_level(logging.WARNING)
    first, again = (launch_in(tmp_path, "engine=inline", *trouble) for _ in range(2))
    assert weights_sha(first) == weights_sha(again)
    data = json.loads((first.folder / "result.json").read_text())
    assert data["failed_replies"] > 0
    assert "dropped out (simulated)" in caplog.text
    assert "missed the deadline" in caplog.text


def test_too_few_replies_fail_the_run_with_the_reason(tmp_path):
    with pytest.raises(RunFailed, match=r"(?s)round 1: only \d of 5 clients .*--resume"):
        launch_in(tmp_path, "engine=inline", "clients.dropout=0.9", "clients.min_reply_fraction=1.0")


def test_a_client_that_raises_is_named_with_round_and_traceback(tmp_path, monkeypatch, caplog):
    original, losses = LocalTraining.base_spec, []

    class Sick(CrossEntropy):
        def forward(self, logits, labels):
            losses.append(1)
            if len(losses) == 3:
                raise ZeroDivisionError("made up")
            return super().forward(logits, labels)

    def sick(self, context):
        spec = original(self, context)
        return spec.change(loss=Sick()) if (context.client, context.round) == (2, 2) else spec

    monkeypatch.setattr(LocalTraining, "base_spec", sick)
    result = launch_in(tmp_path, "engine=inline", "data.imbalance_factor=1", "engine.trainer=loop")
    where = "round 2: no usable reply of client 2: client 2, round 2, train, in local step 3 of"
    assert where in caplog.text
    assert "ZeroDivisionError: made up" in caplog.text
    assert "Traceback" in caplog.text
    assert json.loads((result.folder / "result.json").read_text())["failed_replies"] == 1


def test_a_client_cannot_change_what_the_server_sent(tmp_path, monkeypatch):
    original = ClientRuntime.handle

    def vandal(self, message, client):
        for record in message.content.array_records.values():
            for array in record.values():
                array.numpy()[...] = 0  # a decoded array is a copy
                with pytest.raises(ValueError, match="read-only"):
                    view(array)[...] = 0
        return original(self, message, client)

    expected = weights_sha(launch_in(tmp_path, "engine=inline"))
    monkeypatch.setattr(ClientRuntime, "handle", vandal)
    assert weights_sha(launch_in(tmp_path, "engine=inline")) == expected


def test_an_undeclared_record_does_not_leave(tmp_path, monkeypatch):
    original = LocalTraining.reply

    def leaky(self, prepared, result):
        reply = original(self, prepared, result)
        reply["x.patients"] = reply["arrays"]
        return reply

    monkeypatch.setattr(LocalTraining, "reply", leaky)
    with pytest.raises(RunFailed, match=r"egress filter: record 'x\.patients' is not declared"):
        launch_in(tmp_path, "engine=inline")


def test_prior_of_each_provenance(tmp_path):
    sums = launch_in(tmp_path, "engine=inline", "loss=balanced_softmax")
    oracle = launch_in(tmp_path, "engine=inline", "loss=balanced_softmax", "prior.provenance=oracle")
    local = launch_in(tmp_path, "engine=inline", "loss=balanced_softmax", "prior.provenance=local")
    assert weights_sha(sums) == weights_sha(oracle) != weights_sha(local)
    assert sums.up_bytes - oracle.up_bytes == 5 * 10 * 8


def test_an_aggregator_that_sees_every_reply(tmp_path):
    result = launch_in(tmp_path, "engine=inline", "aggregator=fedmedian")
    assert result.confusion.sum() == 600


def test_an_exception_outside_a_message_step_is_still_an_error_reply():
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from fedimb.engine.flower_private import ensure_identity

    ensure_identity()
    reply = deliver(ClientApp(), Message(RecordDict(), 1, "train"), Context(1, 1, {}, RecordDict(), {}), 0)
    assert reply.has_error()
    assert "client 0" in reply.error.reason


def test_a_clients_error_reply_has_the_traceback_of_a_parts_own_mistake():
    from flwr.app import Context, Message

    from fedimb.engine.flower_private import ensure_identity

    def app(message, context):
        def part():
            return int("three")

        try:
            part()
        except ValueError as error:
            raise error_from(ConfigError, f"loss 'crooked': {error}", error) from error

    ensure_identity()
    reply = deliver(app, Message(RecordDict(), 1, "train"), Context(1, 1, {}, RecordDict(), {}), 0)
    first, *below = reply.error.reason.splitlines()
    assert first.startswith("client 0, round '?', train: ConfigError: loss 'crooked': invalid literal for int()")
    assert any('return int("three")' in line for line in below)


def test_small_settings_are_what_the_tests_think():
    assert config().clients.count == 5
    assert "tracking=none" in SMALL
    with pytest.raises(ConfigError):
        config("clients.count=0")
