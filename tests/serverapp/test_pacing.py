"""Runs at a pace: figures that follow from other runs, on a virtual clock, and what cannot be combined."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_runs import config, launch_in, weights_sha

from fedimb.config.load import config_sha, from_json, to_json
from fedimb.deploy.study_plan.plan import site_config
from fedimb.engine.lanes import LaneSum
from fedimb.errors import ConfigError, RunDiverged, RunFailed
from fedimb.paces.base import SECOND
from fedimb.paces.latency import Latency
from fedimb.paces.synchronous import Deadline, DeadlineSettings, Sync, SyncSettings
from fedimb.records import to_numpy
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.client_sampler import ClientSampler
from fedimb.serverapp.pacing import Pacing

TABLE = ("data=synthetic_table", "model=mlp", "engine=inline", "rounds=4", "clients.count=6", "local.lr=0.1")


def weights(result):
    return load_file(result.folder / "artifacts" / "model" / "model.safetensors")


def metrics(result):
    return [line["metrics"] for line in RunFolder(result.folder).metrics()]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    return launch_in(tmp_path_factory.mktemp("sync"), *TABLE)


def test_a_clock_changes_no_weight(rounds, tmp_path):
    timed = launch_in(tmp_path, *TABLE, "pace.clock=true", "pace.slow=0.2")
    assert weights_sha(timed) == weights_sha(rounds)
    times = [one["time/virtual_s"] for one in metrics(timed)]
    assert times == sorted(times)
    assert times[0] > 0
    assert timed.virtual_s == times[-1]
    assert "time/virtual_s" not in metrics(rounds)[0]


def test_a_buffer_of_all_clients_without_discount_is_a_round(rounds, tmp_path):
    """Differences to the model that everybody began with, added to it, are the mean of the weights."""
    all_of_them = ("pace=buffered", "pace.buffer=6", "pace.exponent=0")
    buffered = launch_in(tmp_path, *TABLE, *all_of_them)
    for name, value in weights(rounds).items():
        assert weights(buffered)[name] == pytest.approx(value, abs=2e-6), name
    assert metrics(buffered)[-1]["async/staleness_max"] == 0
    assert metrics(buffered)[-1]["train/loss"] == pytest.approx(metrics(rounds)[-1]["train/loss"], abs=1e-5)


def test_oversampling_by_nothing_and_a_late_deadline_are_rounds(rounds, tmp_path):
    for pace in (
        ("pace=oversample", "pace.over=1"),
        ("pace=deadline", "pace.after_s=1000"),
        ("pace=tiered", "pace.tiers=1"),
    ):
        assert weights_sha(launch_in(tmp_path, *TABLE, *pace)) == weights_sha(rounds)


def test_buffered_records_who_arrived_and_repeats(tmp_path):
    words = (
        *TABLE,
        "pace=buffered",
        "pace.concurrency=4",
        "pace.slow=0.3",
        "aggregator=fedadam",
        "clients.dropout=0.2",
    )
    one, again = (launch_in(tmp_path / name, *words) for name in ("one", "again"))
    assert weights_sha(one) == weights_sha(again)
    lines = metrics(one)
    table = list(csv.DictReader((one.folder / "artifacts" / "trainings.csv").open()))
    used = [line for line in table if line["makes"]]
    assert sum(line["data/replies"] for line in lines) == len(used)
    assert sum(line["data/participants"] for line in lines) == len(table)
    ends = max(float(line["ends_s"]) for line in used)
    assert lines[-1]["time/virtual_s"] == pytest.approx(ends)
    shares = [value for key, value in lines[-1].items() if key.startswith("exposure/arrived/")]
    assert sum(shares) == pytest.approx(1.0)
    lost = [line for line in table if line["lost"]]
    assert (sum(line["async/wasted_steps"] for line in lines) > 0) == bool(lost)


def test_a_run_without_rounds_is_fedbuff_by_hand(tmp_path, monkeypatch):
    """Every version from the weights that clients sent, by the formula and the table of trainings."""
    sent, trained, rows = {}, {}, {}
    add = LaneSum.add_reply

    def watched(self, reply, message):
        began = int(message.content.config_records["x.fedimb"]["round"]) - 1
        sent[began] = {k: v.astype(np.float64) for k, v in to_numpy(message.content["arrays"]).items()}
        own = {k: v.astype(np.float64) for k, v in to_numpy(reply.content["arrays"]).items()}
        trained[began, reply.client], rows[reply.client] = own, reply.metrics["num-examples"]
        add(self, reply, message)

    monkeypatch.setattr(LaneSum, "add_reply", watched)
    words = ("pace=buffered", "pace.concurrency=4", "pace.buffer=2", "pace.correction=exposure", "pace.server_lr=0.7")
    result = launch_in(tmp_path, *TABLE, *words, "rounds=12", "pace.sigma=1")
    with (result.folder / "artifacts" / "trainings.csv").open() as file:
        table = [line for line in csv.DictReader(file) if line["makes"]]
    sent[12] = weights(result)
    assert {float(line["weight"]) for line in table} != {1.0}
    known = [version for version in range(1, 13) if {version, version - 1} <= sent.keys()]  # somebody began with both
    assert len(known) >= 8
    for version in known:
        own = [line for line in table if int(line["makes"]) == version]
        assert len(own) == 2
        for name, before in sent[version - 1].items():
            total = whole = 0.0
            for line in own:
                client, began, weight = int(line["client"]), int(line["version"]), float(line["weight"])
                update = trained[began, client][name] - sent[began][name]
                total = total + rows[client] * weight * (1 + version - 1 - began) ** -0.5 * update
                whole += rows[client] * weight
            assert sent[version][name] == pytest.approx(before + 0.7 * total / whole, abs=1e-6)


def test_fedasync_and_the_prior_of_what_arrived_learn(tmp_path):
    words = (
        "pace=fedasync",
        "loss=balanced_softmax",
        "prior.weighting=arrived",
        "rounds=12",
    )
    result = launch_in(tmp_path, *TABLE, *words)
    assert np.isfinite(next(iter(weights(result).values()))).all()
    facts = json.loads((result.folder / "result.json").read_text())
    assert sum(facts["prior"]["counts"]) == pytest.approx(sum(facts["train_counts"]))
    assert facts["prior"]["counts"] != pytest.approx(facts["train_counts"])


@pytest.mark.parametrize(
    ("pace", "lost_ends_s"),
    [(Sync(SyncSettings(clock=True)), 0.3), (Deadline(DeadlineSettings(after_s=1.0)), 1.0)],
)
def test_the_clock_waits_for_lost_clients(pace, lost_ends_s):
    """Three clients take 0.1, 0.2 and 0.3 s; whoever is lost, the round ends no earlier than without losses."""
    settings = SyncSettings(clock=True, sigma=0, jitter=0)
    latency = Latency(settings, 0, np.array([10, 20, 30]), payload=0)
    clients = config("data=digits", "clients.count=3", "clients.dropout=0.3").clients
    pacing = Pacing(pace, latency, ClientSampler(clients, 0, np.array([10, 20, 30])), clients, 0)
    cohorts = [pacing.cohort(server_round) for server_round in range(1, 30)]
    assert {bool(one.lost) for one in cohorts} == {True, False}
    for one in cohorts:
        assert one.ns == round((lost_ends_s if one.lost else 0.3) * SECOND)


def test_steps_of_lost_clients_are_wasted(tmp_path):
    lines = metrics(launch_in(tmp_path, *TABLE, "pace.clock=true", "clients.dropout=0.2"))
    assert {line["data/replies"] < 6 for line in lines} == {True, False}
    assert {(line["async/wasted_steps"] > 0) == (line["data/replies"] < 6) for line in lines} == {True}
    assert len({line["train/steps"] + line["async/wasted_steps"] for line in lines}) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("pace=buffered", "pace.concurrency=3", "pace.buffer=1", "clients.availability=0.2"),
        ("clients.availability=0.1",),
    ],
)
def test_a_round_that_nobody_begins_has_no_scores_of_clients(tmp_path, words):
    """They were those of the last one that somebody began: of an earlier model, and gone after a resume."""
    lines = metrics(launch_in(tmp_path, *TABLE, *words, "rounds=6", "data.validation=0.2"))
    idle = [one for one in lines if not one["data/participants"]]
    assert idle
    assert any("client/macro_recall" in one for one in lines)
    assert [key for one in idle for key in one if key.startswith("client/")] == []


def test_a_deadline_that_most_miss_fails_the_run(tmp_path):
    late = ("pace=deadline", "pace.quantile=0.2", "pace.jitter=0")
    with pytest.raises(RunFailed, match=r"round 1: only . of 6 clients are in time .* give them longer"):
        launch_in(tmp_path, *TABLE, *late)


@pytest.mark.slow
def test_batch_norm_goes_with_a_buffer(tmp_path):
    words = ("model=resnet8", "model.norm=batch", "rounds=2", "clients.count=2", "data.imbalance_factor=5")
    result = launch_in(tmp_path, *words, "data.n_max=20", "engine=inline", "pace=buffered")
    assert np.isfinite(result.metrics["macro_recall"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pace=buffered", "aggregator=krum"), "aggregator 'krum' needs those of a round together"),
        (("pace=buffered", "aggregator=fednova"), "aggregator 'fednova' needs those of a round together"),
        (("pace=fedasync", "aggregator=scaffold"), "aggregator 'scaffold'"),
        (("pace=buffered", "strategy=fediic"), "strategy 'fediic' needs those of a round together"),
        (("pace=buffered", "attack=label_flip"), "attack 'label_flip' would begin"),
        (
            ("pace=oversample", "privacy.clip=1.0", "privacy.noise=1.0", "aggregation_weight=uniform"),
            "privacy.noise is accounted for rounds in which every client asked counts",
        ),
        (("pace=deadline", "clients.deadline_s=3"), "not on the clock of pace 'deadline'"),
        (("pace.clock=true", "clients.deadline_s=3"), "not on the clock of pace 'sync'"),
        (("pace=buffered", "clients.max_weight_share=0.5"), "compares the clients of a round"),
        (("pace=buffered", "engine=flower"), "use engine=ray or inline"),
        (
            ("pace=tiered", "pace.tiers=2", "pace.probabilities=[0.5,0.5]", "aggregator=fedmedian"),
            "mean update of a tier",
        ),
        (("pace=oversample", "strategy=fedssg"), "trains another model too"),
        (
            ("prior.weighting=arrived", "prior.provenance=secure_sum", "loss=balanced_softmax"),
            "only the sum over clients",
        ),
        (("prior.weighting=arrived", "prior.provenance=local", "loss=balanced_softmax"), "shows the server nothing"),
        (("prior.weighting=arrived", "strategy=coreset", "loss=balanced_softmax"), "may train on other rows"),
        (("pace=buffered", "pace.sigm=1"), "Did you mean 'sigma'"),
        (("pace.sigma=1",), "of a clock that does not run"),
        (("pace=buffered", "pace.rho=0.5"), "set correlate=minority or size"),
        (("pace=fedasync", "pace.exponent=400"), "would count 4e-121 times, which is nothing; give at most 16"),
        (("pace=bufered",), "Did you mean 'buffered'"),
    ],
)
def test_refused_before_work(words, says):
    with pytest.raises(ConfigError, match=says):
        config("data=digits", *words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pace=oversample",), "real sites have their own; set pace=sync and pace.clock=false .* or pace=buffered"),
        (("pace=deadline",), r"set .* \(and clients.deadline_s, to leave late sites out of a step\)"),
        (("pace.clock=true",), "real sites have their own; set pace=sync and pace.clock=false"),
        (("prior.weighting=arrived", "pace=buffered"), r"between sites set prior\.weighting=data"),
        (("pace=buffered", "pace.slow=0.2"), r"pace\.slow=0\.2 is of a simulated clock, .* leave it at 0\.0"),
        (("pace=fedasync", "clients.dropout=0.1"), r"clients\.dropout=0\.1 simulates failures, .* set .*dropout=0"),
        (("pace=buffered", "clients.availability=0.5"), r"set clients\.availability=1"),
    ],
)
def test_a_plan_for_real_sites_with_a_simulated_clock_is_refused(words, says):
    own = config("data=digits", *words)
    with pytest.raises(ConfigError, match=says):
        site_config(to_json(own))


@pytest.mark.parametrize("words", [("pace=buffered", "pace.buffer=2", "pace.correction=exposure"), ("pace=fedasync",)])
def test_paces_that_take_replies_as_they_come_work_at_sites(words):
    own = config("data=digits", *words)
    assert site_config(to_json(own)) == own


def test_clients_that_diverge_end_a_run_without_rounds(tmp_path):
    with pytest.raises(RunDiverged, match=r"round 2: only 0 of the last 4 replies are usable"):
        launch_in(tmp_path, *TABLE, "pace=buffered", "pace.concurrency=4", "local.lr=1e30")


def test_settings_that_do_not_suit_the_clients_are_refused_before_a_run_folder_exists(tmp_path):
    with pytest.raises(ConfigError, match=r"pace\.concurrency=7, and 6 clients have rows"):
        launch_in(tmp_path, *TABLE, "pace=buffered", "pace.concurrency=7")
    with pytest.raises(ConfigError, match=r"pace\.correction=exposure changes nothing"):
        launch_in(tmp_path, *TABLE, "pace=fedasync", "pace.correction=exposure")
    assert not (tmp_path / "runs").exists()


def test_the_hash_of_a_run_without_a_clock_is_that_of_before():
    own = config("data=digits")
    tree = json.loads(to_json(own))
    del tree["pace"]
    assert config_sha(from_json(json.dumps(tree))) == config_sha(own)
    assert config_sha(config("data=digits", "pace.clock=true")) != config_sha(own)
    assert config_sha(config("data=digits", "pace=buffered")) != config_sha(own)
