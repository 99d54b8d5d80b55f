"""SCOPE as a run: exchanges, bytes, coresets, prior, controls, resume, and what is refused before any work."""

import json

import numpy as np
import pytest
from small_runs import config, launch_in

from fedimb.clientapp.state import StateStore
from fedimb.data.store import open_source
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.assemble import check_parts
from fedimb.serverapp.launch import resume

IDENTITY = ("strategy=scope", "strategy.scope.encoder={name: identity}", "strategy.scope.warmup=0", "engine=inline")

NO_WARMUP = ("strategy.scope.warmup=0",)


def kept_of(result):
    return json.loads((result.folder / "artifacts" / "scope.json").read_text())


def metrics_of(result):
    return [line["metrics"] for line in RunFolder(result.folder).metrics()]


def test_a_run_prunes_once_trains_on_what_is_left_and_says_what_it_kept(tmp_path):
    result = launch_in(tmp_path, *IDENTITY, "strategy.scope.p_f=0.9", "calibration=[none,la_post]")
    table = kept_of(result)
    kept, held = np.array(table["kept"]), np.array(table["held"])
    assert (kept <= held).all()
    assert ((held == 0) | (kept > 0)).all()  # no class that is present is emptied
    assert 0.2 < table["kept_fraction"] < 0.9
    # The globally rarest class loses rows to stage 1 alone.
    rarest = int(held.sum(0).argmin())
    assert (kept + np.array(table["anomalous"]))[:, rarest].tolist() == held[:, rarest].tolist()
    np.testing.assert_array_equal(result.prior_counts, kept.sum(0))  # the prior is counted anew over the coreset
    lines = metrics_of(result)
    assert lines[-1]["data/kept_fraction"] == pytest.approx(table["kept_fraction"])
    assert [row.label for row in result.rows] == ["scope", "scope+la_post"]
    panel = json.loads((result.folder / "artifacts" / "panels" / "scope.json").read_text())
    assert panel["caption"].startswith(f"{kept.sum()} of {held.sum()} rows")


def test_the_profile_costs_28_bytes_a_class_and_the_choice_12(tmp_path):
    result = launch_in(tmp_path, *IDENTITY, "rounds=1")
    lines = metrics_of(result)[0]
    clients, classes, width = 5, 10, 64
    assert lines["comm/up_bytes/scope_profile"] == clients * (28 * classes + 8)  # and the state's version
    assert lines["comm/up_bytes/scope_prune"] <= clients * (12 * classes + 8)
    assert lines["comm/up_bytes/scope_prototypes"] == clients * 4 * classes * width


def test_an_encoder_with_class_vectors_of_its_own_sends_no_prototypes(tmp_path):
    store = open_source({"name": "digits"})
    x, y = np.asarray(store.x, dtype=np.float32).reshape(len(store), -1), np.asarray(store.y)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    vectors = np.stack([unit[y == label].mean(0) for label in range(10)])
    file = tmp_path / "text.npz"
    np.savez(file, x=x, y=y, class_vectors=vectors, class_names=np.array(store.class_names))
    text = f"strategy.scope.encoder={{name: precomputed_text, path: {file}}}"
    result = launch_in(tmp_path, *IDENTITY[:1], text, *IDENTITY[2:], "rounds=1", "strategy.scope.p_f=0.9")
    lines = metrics_of(result)[0]
    assert "comm/up_bytes/scope_prototypes" not in lines
    assert lines["comm/up_bytes/scope_profile"] == 5 * (28 * 10 + 8)
    assert 0.2 < kept_of(result)["kept_fraction"] < 0.9


def test_pruning_nothing_is_training_on_everything(tmp_path):
    off = ("strategy.scope.p_f=0", "strategy.scope.p_l=0")
    pruned, plain = launch_in(tmp_path / "a", *IDENTITY, *off), launch_in(tmp_path / "b", "engine=inline")
    assert kept_of(pruned)["kept_fraction"] == 1.0
    assert pruned.rows[0].final == plain.rows[0].final


@pytest.mark.parametrize("choice", ["random", "score_only", "undersample"])
def test_controls_keep_what_they_say(tmp_path, choice):
    words = (*IDENTITY, "rounds=1", "strategy.scope.p_f=0.7")
    scope = kept_of(launch_in(tmp_path / "a", *words))
    other = kept_of(launch_in(tmp_path / "b", *words, f"strategy.scope.choice={choice}"))
    if choice == "random":
        assert other["kept"] == scope["kept"]
    elif choice == "undersample":
        assert np.sum(other["kept"], axis=1).tolist() == np.sum(scope["kept"], axis=1).tolist()
        assert np.sum(other["anomalous"]) == 0
    else:
        assert np.sum(other["kept"]) < np.sum(scope["kept"])


def test_the_federations_own_features_after_a_warm_up_and_equal_steps(tmp_path):
    words = ("strategy=scope", "strategy.scope.warmup=2", "engine=inline", "rounds=4")
    equal = launch_in(tmp_path / "a", *words)
    native = launch_in(tmp_path / "b", *words, "strategy.scope.steps=native")
    plain = launch_in(tmp_path / "c", "engine=inline", "rounds=4")
    assert len(metrics_of(equal)) == 4  # the warm-up's rounds are among them
    assert equal.steps == plain.steps
    assert native.steps < plain.steps
    assert "data/kept_fraction" not in metrics_of(equal)[1]
    assert "data/kept_fraction" in metrics_of(equal)[2]


def test_small_cells_are_not_reported_and_noise_changes_the_choice(tmp_path):
    words = (*IDENTITY, "rounds=1", "strategy.scope.p_f=0.7")
    plain = kept_of(launch_in(tmp_path / "a", *words))
    guarded = kept_of(launch_in(tmp_path / "b", *words, "strategy.scope.min_count=4"))
    noisy = kept_of(launch_in(tmp_path / "c", *words, "strategy.scope.sigma=3"))
    assert guarded["kept"] != plain["kept"]
    assert (guarded["settings"]["min_count"], plain["settings"]["sigma"]) == (4, 0)
    assert noisy["kept"] != plain["kept"]


def test_a_run_killed_after_the_choice_keeps_its_coresets(tmp_path, monkeypatch):
    from fedimb.serverapp.training_rounds import TrainingRounds

    words = (*IDENTITY, "rounds=3", "calibration=[none,la_post]")
    whole = launch_in(tmp_path / "a", *words)
    original = TrainingRounds.train

    def stop(rounds, model, name):
        if rounds.progress.server_round == 1:
            raise KeyboardInterrupt
        return original(rounds, model, name)

    monkeypatch.setattr(TrainingRounds, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path / "b", *words)
    monkeypatch.setattr(TrainingRounds, "train", original)
    (folder,) = (tmp_path / "b" / "runs" / "default").iterdir()
    assert StateStore(folder / "clients").load(0, 3) is not None
    again = resume(folder)
    assert again.rows[1].final == whole.rows[1].final
    np.testing.assert_array_equal(again.prior_counts, whole.prior_counts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy.scope.warmup=0"], "set e.g. strategy.scope.warmup=5"),
        (["strategy.scope.encoder={name: identity}"], "warmup=5 is only for encoder global_features"),
        (["strategy.scope.warmup=3", "rounds=3"], "uses up all rounds=3"),
        (["strategy.scope.p_f=1.5"], "p_f"),
        (["strategy.scope.gate=lateral"], "relative"),
        (["strategy.scope.encoder={name: identiti}"], "Did you mean 'identity'"),
        (
            ["strategy.scope.encoder={name: random_conv}", "strategy.scope.warmup=0", "data=synthetic_table"],
            "reads images",
        ),
        (["prior.provenance=secure_sum", "loss=balanced_softmax", "strategy.scope.warmup=1"], "in the clear"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        launch_in(tmp_path, "strategy=scope", "engine=inline", *words)
    assert not list(tmp_path.glob("runs/*/*/metrics.jsonl"))


def test_a_single_class_is_refused(monkeypatch):
    from types import SimpleNamespace

    from fedimb.clients.scope import ScopeClient

    with pytest.raises(ConfigError, match="needs at least two classes"):
        ScopeClient().check(SimpleNamespace(task="multiclass", class_names=("only",), store=None))
    with pytest.raises(ConfigError, match="several labels"):
        ScopeClient().check(SimpleNamespace(task="multilabel", class_names=("a", "b"), store=None))
    assert callable(check_parts)
    assert config("strategy=scope", "engine=inline").strategy["scope"]["p_f"] == 0.5
