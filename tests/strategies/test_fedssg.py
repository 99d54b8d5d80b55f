"""FedSSG as a run: who makes samples, what clients train on, what is counted, what waits, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from fedssg_runs import metrics_of, report_of
from small_runs import config, launch_in, weights_sha

from fedimb.clientapp.state import StateStore
from fedimb.config.load import from_json
from fedimb.data.prepare import prepare
from fedimb.data.public import public_rows
from fedimb.errors import ConfigError, DataError, FedimbError, RunFailed, RunWaiting
from fedimb.generation.outbox.box import Outbox
from fedimb.serverapp.launch import resume
from fedimb.serverapp.server import Server

TABLE = (
    "data=synthetic_table",
    "data.source.rows=2400",
    "data.imbalance_factor=8",
    "data.n_max=null",
    "engine=inline",
    "clients.count=3",
    "partition.alpha=100",
    "local.lr=0.1",
    "rounds=2",
)
FAST = ("strategy=fedssg", "strategy.fedssg.training.steps=12", "strategy.fedssg.pretrain=2")
PUBLIC = (*TABLE, *FAST, "data.public=25")
CLIENTS = (*TABLE, *FAST, "strategy.fedssg.source=client_generators")


def public_of(config):
    return public_rows(prepare(config.data, config.partition, config.clients.count, config.seed)).x.numpy()


def test_samples_of_the_servers_generator_are_planned_screened_handed_out_and_counted(tmp_path):
    result = launch_in(tmp_path, *PUBLIC, "calibration=[none,la_post]")
    report = report_of(result)
    real, wanted, taken = (np.array(report[key]) for key in ("real", "wanted", "taken"))
    assert wanted.sum() > 0
    assert (taken <= wanted.sum(axis=2)).all()
    assert report["screen"]["of"] >= 2 * report["pool_shared"]
    assert report["screen"]["kept"] <= report["screen"]["of"]
    np.testing.assert_allclose(result.prior_counts, real.sum(axis=(0, 2)) + 0.5 * taken.sum(axis=0))
    lines = metrics_of(result)
    assert lines[-1]["data/synthetic"] == taken.sum()
    plain = launch_in(tmp_path, *TABLE, "data.public=25", "study=plain")
    assert lines[-1]["train/steps"] == metrics_of(plain)[-1]["train/steps"]  # equal local steps
    assert result.rows[1].label == "fedssg+la_post"


def test_the_prior_may_count_real_rows_alone(tmp_path):
    result = launch_in(tmp_path, *PUBLIC, "calibration=la_post", "prior.view=real")
    np.testing.assert_allclose(result.prior_counts, np.array(report_of(result)["real"]).sum(axis=(0, 2)))


def test_a_generator_is_trained_once_for_all_rows_of_a_study(tmp_path, monkeypatch):
    from fedimb.generation import generator_cache

    first = launch_in(tmp_path, *PUBLIC, "seed=5")

    def never(*args, **kwargs):
        raise AssertionError("trained a second time")

    monkeypatch.setattr(generator_cache, "train_generator", never)
    second = launch_in(tmp_path, *PUBLIC, "seed=5", "study=again")
    assert weights_sha(first) == weights_sha(second)
    with pytest.raises(AssertionError, match="second time"):
        launch_in(tmp_path, *PUBLIC, "seed=5", "strategy.fedssg.training.lr=0.003")


@pytest.mark.parametrize("made", ["oversample", "smote"])
def test_controls_add_as_many_rows_and_let_none_leave(tmp_path, made):
    result = launch_in(tmp_path, *TABLE, *FAST, f"strategy.fedssg.made={made}", "rounds=1")
    report, line = report_of(result), metrics_of(result)[0]
    wanted, taken = np.array(report["wanted"]).sum(axis=2), np.array(report["taken"])
    np.testing.assert_array_equal(taken, wanted)  # every client has two rows of every class here
    classes = wanted.shape[1]
    assert line["comm/up_bytes/fedssg_take"] <= 3 * (4 * classes + 8)
    state = StateStore(result.folder / "clients").load(0, 2)
    held = state.array_records["synthetic"]["y"].numpy()
    np.testing.assert_array_equal(np.bincount(held, minlength=classes), taken[0])


def test_the_servers_own_rows_fill_the_plan_in_place_of_samples(tmp_path):
    result = launch_in(tmp_path, *PUBLIC, "strategy.fedssg.made=public", "rounds=1")
    report = report_of(result)
    wanted, taken = np.array(report["wanted"]).sum(axis=2), np.array(report["taken"])
    np.testing.assert_array_equal(taken, np.minimum(wanted, 25))
    assert "screen" not in report
    own = {row.tobytes() for row in public_of(from_json((result.folder / "config.json").read_text()))}
    given = StateStore(result.folder / "clients").load(0, 2).array_records["synthetic"]["x"].numpy()
    assert len(given) == taken[0].sum() > 0
    assert {row.tobytes() for row in given} <= own
    with pytest.raises(ConfigError, match=r"data\.public"):
        launch_in(tmp_path, *TABLE, *FAST, "strategy.fedssg.made=public")


def ready_made(folder, **changes):
    """Words for a file of 3,000 rows of each class, and its rows."""
    settings = config(*TABLE)
    store = prepare(settings.data, settings.partition, settings.clients.count, settings.seed).store
    y = np.repeat(np.arange(store.n_classes), 3000)
    x = np.random.default_rng(0).standard_normal((len(y), *store.input_shape)).astype(np.float32)
    np.savez(folder / "made.npz", x=x, y=y)
    words = {"name": "external_dir", "path": str(folder / "made.npz")} | changes
    return f"strategy.fedssg.generator={{{', '.join(f'{key}: {value}' for key, value in words.items())}}}", x


def test_ready_made_rows_need_none_at_the_server_and_reach_the_clients(tmp_path):
    words, x = ready_made(tmp_path)
    result = launch_in(tmp_path, *TABLE, *FAST, words, "rounds=1")
    report = report_of(result)
    wanted, taken = np.array(report["wanted"]).sum(axis=2), np.array(report["taken"])
    assert wanted.sum() > 0
    np.testing.assert_array_equal(taken, wanted)
    held = StateStore(result.folder / "clients").load(0, 2).array_records["synthetic"]["x"].numpy()
    assert {row.tobytes() for row in held} <= {row.tobytes() for row in x}
    with_rows = launch_in(tmp_path, *TABLE, *FAST, words, "rounds=1", "data.public=5", "study=rows")
    assert np.sum(report_of(with_rows)["taken"]) > 0, "5 rows of each class: too few to train a generator, none is"


@pytest.mark.parametrize("public", [(), ("data.public=30",)], ids=["at a client", "at the server"])
def test_ready_made_rows_in_other_units_are_refused(tmp_path, public):
    words, x = ready_made(tmp_path)
    with np.load(tmp_path / "made.npz") as held:
        y = held["y"]
    np.savez(tmp_path / "made.npz", x=x * 255, y=y)
    with pytest.raises(FedimbError, match=r"the rows they are used beside from .* save them in the same units"):
        launch_in(tmp_path, *TABLE, *FAST, words, "rounds=1", *public)


@pytest.mark.parametrize(
    ("changes", "more", "says"),
    [
        ({}, ("strategy.fedssg.source=fed_diffusion",), r"trains one generator at all clients.*serves ready-made"),
        ({}, ("strategy.fedssg.source=client_generators",), "reads the same file at all simulated clients"),
        ({}, ("strategy.fedssg.source=client_generators", "strategy.fedssg.cross=true"), "cross=true trains two"),
        ({"confidence": 0.6}, (), r"confidence needs real rows.*the server has none: set data\.public"),
        ({"path": "nowhere.npz"}, (), r"strategy\.fedssg\.generator: no 'nowhere\.npz'"),
        ({"confidence": 2}, (), "confidence=2: give a probability below 1"),
        (
            {"name": "table_flow", "confidence": 0.6},
            ("strategy.fedssg.source=fed_diffusion",),
            "confidence needs a classifier",
        ),
    ],
)
def test_what_a_generator_cannot_do_for_a_source_is_refused_before_any_work(tmp_path, changes, more, says):
    words, _ = ready_made(tmp_path, **changes)
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *TABLE, *FAST, words, *more)
    assert not (tmp_path / "runs").exists()


def test_ready_made_rows_of_a_class_that_the_filter_has_not_seen_are_refused_before_any_work(tmp_path, monkeypatch):
    words, _ = ready_made(tmp_path, confidence=0.6)
    public = Server.public

    def without_the_last(server):
        rows = public(server)
        kept = rows.y < len(server.class_names()) - 1
        return replace(rows, x=rows.x[kept], y=rows.y[kept], d=rows.d[kept])

    monkeypatch.setattr(Server, "public", without_the_last)
    with pytest.raises(ConfigError, match=r"strategy\.fedssg\.generator: a filter.* no real rows of '[^']+', so it"):
        launch_in(tmp_path, *PUBLIC, words)
    assert not (tmp_path / "runs").exists()


def test_a_plan_of_nothing_trains_no_generator(tmp_path, monkeypatch):
    from fedimb.generation import generator_cache

    monkeypatch.setattr(generator_cache, "train_generator", None)
    result = launch_in(tmp_path, *PUBLIC, "strategy.fedssg.plan.balance=none", "seed=6")
    assert np.sum(report_of(result)["taken"]) == 0
    assert metrics_of(result)[-1]["data/synthetic"] == 0


def test_own_pools_give_no_sample_to_two_clients(tmp_path):
    result = launch_in(tmp_path, *PUBLIC, "strategy.fedssg.pool=own", "rounds=1")
    seen = []
    for client in range(3):
        state = StateStore(result.folder / "clients").load(client, 2)
        if "synthetic" in state:
            seen += [row.tobytes() for row in state.array_records["synthetic"]["x"].numpy()]
    assert len(seen) == len(set(seen)) > 0


def test_what_clients_make_passes_their_gates_or_stays(tmp_path):
    freely = launch_in(tmp_path, *CLIENTS, "strategy.fedssg.gate=report", "rounds=1")
    assert metrics_of(freely)[0]["comm/up_bytes/fedssg_make"] > 0
    assert any(name.startswith("privacy/") for name in metrics_of(freely)[0])
    made = np.array(report_of(freely)["taken"]).sum()
    assert made > 0
    with pytest.raises(RunFailed, match="no class of any client passed its export gate"):
        launch_in(tmp_path, *CLIENTS, "rounds=1", "study=strict", "strategy.fedssg.audit.min_count=100000")


@pytest.mark.slow
def test_a_release_by_hand_is_waited_for_and_then_the_run_is_as_if_released_at_once(tmp_path, monkeypatch):
    # An audit that lets this little through: what is tested is the waiting.
    words = (*CLIENTS, "strategy.fedssg.gate=enforce", f"strategy.fedssg.folder={tmp_path}/sites")
    words += tuple(f"strategy.fedssg.audit.{one}" for one in ("power=0.001", "copied=0.99", "alpha=0.001"))
    whole = launch_in(tmp_path, *words)
    with pytest.raises(RunWaiting, match=r"clients \(0.*fedimb outbox list"):
        launch_in(tmp_path, *words, "strategy.fedssg.release=manual", "study=waits")
    (folder,) = (tmp_path / "runs" / "waits").iterdir()
    with pytest.raises(RunWaiting):
        resume(folder)  # nobody has looked yet
    for site in sorted((tmp_path / "sites").iterdir()):
        box = Outbox(site / "outbox")
        for batch in box.ids():
            box.release(batch, box.state(batch))
    resumed = resume(folder)
    assert report_of(resumed)["taken"] == report_of(whole)["taken"]
    assert weights_sha(resumed) == weights_sha(whole)


@pytest.mark.slow
def test_a_generator_is_averaged_over_cohorts(tmp_path):
    words = (*TABLE, *FAST, "strategy.fedssg.source=fed_diffusion", "strategy.fedssg.rounds=2", "rounds=1")
    words += ("strategy.fedssg.local_steps=5", "strategy.fedssg.gate=report", "clients.participation=0.4")
    words += ("strategy.fedssg.force=true", "strategy.fedssg.audit.min_count=2")
    one = metrics_of(launch_in(tmp_path, *words, "clients.count=5"))[0]
    all_ = metrics_of(launch_in(tmp_path, *words, "clients.count=5", "clients.participation=1.0"))[0]
    up = [line["comm/up_bytes/fedssg_teach"] for line in (one, all_)]
    assert up[0] * 5 == pytest.approx(up[1] * 2, rel=1e-4), "up to the digits of a state's version"


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    from fedimb.strategies.fedssg import FedSSG

    whole = launch_in(tmp_path, *PUBLIC, "rounds=3")
    original = FedSSG.on_train_replies

    def stop(self, server_round, replies):
        if server_round == 2:
            raise KeyboardInterrupt
        return original(self, server_round, replies)

    monkeypatch.setattr(FedSSG, "on_train_replies", stop)
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path, *PUBLIC, "rounds=3", "study=cut")
    monkeypatch.setattr(FedSSG, "on_train_replies", original)
    (folder,) = (tmp_path / "runs" / "cut").iterdir()
    resumed = resume(folder)
    assert weights_sha(resumed) == weights_sha(whole)
    assert report_of(resumed) == report_of(whole)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("strategy.fedssg.plan.taw=1",), "tau"),
        (("strategy.fedssg.training.stepz=1",), "steps"),
        (("strategy.fedssg.audit.alpha=2",), "alpha"),
        (("strategy.fedssg.holdout=1.0",), "holdout"),
        (("strategy.fedssg.visits=1.5",), "visits"),
        (("strategy.fedssg.surplus=0.5",), "surplus"),
        (("strategy.fedssg.epsilon=0.0",), "epsilon"),
    ],
)
def test_settings_out_of_range_are_named_before_any_work(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *PUBLIC, *words)
    assert not (tmp_path / "runs").exists()


def test_a_server_without_rows_and_classes_below_the_floor_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.public"):
        launch_in(tmp_path, *TABLE, *FAST)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(DataError, match="force"):
        launch_in(tmp_path, *TABLE, *FAST, "data.public=10")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_cross_audit_judges_generators_of_each_half_and_keeps_no_row_back(tmp_path):
    result = launch_in(tmp_path, *CLIENTS, "strategy.fedssg.cross=true", "strategy.fedssg.gate=report", "rounds=1")
    assert any(name.startswith("privacy/") for name in metrics_of(result)[0])
    assert np.array(report_of(result)["taken"]).sum() > 0


def test_fewer_holders_than_the_gate_asks_for_keep_a_class_at_home(tmp_path):
    words = ("strategy.fedssg.audit.min_holders=4", "rounds=1")  # of three clients
    with pytest.raises(RunFailed, match="no class of any client passed"):
        launch_in(tmp_path, *CLIENTS, *words)
