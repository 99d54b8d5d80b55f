"""Active learning as a run: cycles, budgets, counts, the prior, hidden labels, resume, and a real wait for people."""

import json
import logging

import numpy as np
import pytest
from small_runs import config, launch_in

from fedimb import registry
from fedimb.config.load import row_label
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume
from fedimb.study.collect import read_run
from fedimb.study.design import Costs

CYCLES = ("engine=inline", "partition=iid", "rounds=6", "clients.count=4", "calibration=[none,la_post]")
ACTIVE = ("strategy=active", "strategy.active.cycles=3", "strategy.active.budget=6", "strategy.active.local_epochs=3")
FAIRFAL = ("strategy=fairfal", *(word.replace(".active.", ".fairfal.") for word in ACTIVE[1:]))


def table(result, name="active"):
    return json.loads((result.folder / "artifacts" / f"{name}.json").read_text())


def lines_of(result, row=0):
    label = result.rows[row].label
    return [line["metrics"] for line in RunFolder(result.folder).metrics() if line["row"] == label]


FAST = ("random", "kafal", "quota_random", "oracle_balanced", "fairfal")


@pytest.mark.parametrize(
    "rule",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in registry.names("query")],
)
def test_every_rule_labels_its_budget_each_cycle_and_trains_on_nothing_else(tmp_path, rule):
    result = launch_in(tmp_path, *CYCLES, *ACTIVE, f"strategy.active.query={{name: {rule}}}")
    found = table(result)
    by_cycle = np.array(found["labelled_by_cycle"])
    assert by_cycle.sum(1).tolist() == [24, 48, 72]
    assert (np.diff(by_cycle, axis=0) >= 0).all()
    assert [int(line["data/labelled"]) for line in lines_of(result)] == [24, 24, 48, 48, 72, 72]
    assert result.labels == 72
    np.testing.assert_array_equal(result.prior_counts, by_cycle[-1])  # the prior is of the labels, not of the pool
    assert (by_cycle[-1] <= result.train_counts).all()
    assert result.rows[0].label == f"active_{rule}"


def test_fairfal_logs_what_it_did(tmp_path):
    fair = launch_in(tmp_path, *CYCLES, *FAIRFAL, "data.imbalance_factor=10")
    last = lines_of(fair)[-1]
    assert 0 <= last["data/gamma"] <= 1
    assert 0 <= last["data/distance"] <= 1
    assert 0 <= last["data/local_share"] <= 1
    assert 0 <= last["data/pseudo_label_accuracy"] <= 1
    rare = list(fair.minority)
    labelled = np.array(table(fair, "fairfal")["labelled_by_cycle"][-1])
    assert last["data/tail_found"] == pytest.approx(labelled[rare].sum() / fair.train_counts[rare].sum())
    assert [last[f"data/labelled/{c:02d}"] for c in range(10)] == labelled.tolist()
    # gamma is asked for once, at the first query.
    asked = [key for line in lines_of(fair) for key in line if key == "comm/up_bytes/fairfal_balance"]
    assert len(asked) == 1


def test_the_area_under_the_label_curve_is_the_trapezoid_of_the_cycles_ends(tmp_path):
    result = launch_in(tmp_path, *CYCLES, *ACTIVE)
    lines = lines_of(result, 1)
    ends = [lines[i]["test/minority_recall"] for i in (1, 3, 5)]
    by_hand = (ends[0] + 2 * ends[1] + ends[2]) / 4  # cycles of equal length
    found = read_run(result.folder, "default", Costs())[1].score("aulc_minority_recall")
    assert found == pytest.approx(by_hand, nan_ok=True)


def test_training_on_keeps_the_weights_and_a_restart_does_not(tmp_path):
    first = ("strategy.active.first=30", "strategy.active.budget=1", "local.lr=0.1")
    fresh = lines_of(launch_in(tmp_path / "a", *CYCLES, *ACTIVE, *first))
    kept = lines_of(launch_in(tmp_path / "b", *CYCLES, *ACTIVE, *first, "strategy.active.restart=false"))
    assert fresh[1]["train/loss"] == kept[1]["train/loss"]
    assert fresh[2]["train/loss"] > kept[2]["train/loss"]


def test_a_run_interrupted_between_choice_and_training_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    from fedimb.serverapp.loop import Loop

    whole = launch_in(tmp_path / "a", *CYCLES, *FAIRFAL)
    original, seen = Loop._query, []

    def stop(self, step):
        result = original(self, step)
        seen.append(step.name)
        if step.name == "fairfal_choose" and seen.count("fairfal_choose") == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Loop, "_query", stop)
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path / "b", *CYCLES, *FAIRFAL)
    monkeypatch.setattr(Loop, "_query", original)
    (folder,) = (tmp_path / "b" / "runs" / "default").iterdir()
    again = resume(folder)
    assert table(again, "fairfal") == table(whole, "fairfal")
    assert [row.final for row in again.rows] == [row.final for row in whole.rows]


def test_the_whole_pool_can_be_labelled_and_more_is_not_asked_for(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = launch_in(tmp_path, *CYCLES, *ACTIVE, "strategy.active.budget=9", "strategy.active.first=500")
    assert table(result)["pool_by_client"] == {str(k): 0 for k in range(4)}
    np.testing.assert_array_equal(result.prior_counts, result.train_counts)
    assert "less than the 10 classes" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy.active.cycles=4"], "does not divide rounds=6.*set rounds=8"),
        (["strategy.active.budget=0"], "budget"),
        (["strategy.active.query={name: entropi}"], "Did you mean 'entropy'"),
        (["strategy.active.oracle={name: simulatd}"], "Did you mean 'simulated'"),
        (["strategy.active.which=both"], "global"),
        (["strategy.active.query_view=other"], "mismatched"),
        (
            ["strategy.active.query_view=mismatched", "strategy.active.oracle={name: worklist}"],
            "is possible only in a simulation",
        ),
        (["prior.provenance=dp_sum"], "in the clear"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        launch_in(tmp_path, *CYCLES, *ACTIVE, *words)
    assert not (tmp_path / "runs").exists()


def test_mismatched_views_score_other_pictures_but_label_and_train_on_ones_own(tmp_path):
    words = (*CYCLES, *FAIRFAL, "data.imbalance_factor=10")
    same = launch_in(tmp_path / "same", *words)
    other = launch_in(tmp_path / "other", *words, "strategy.fairfal.query_view=mismatched")
    first, second = (np.array(table(r, "fairfal")["labelled_by_cycle"]) for r in (same, other))
    np.testing.assert_array_equal(first[0], second[0])  # drawn at random, without looking
    assert second.sum(1).tolist() == [24, 48, 72]
    assert not np.array_equal(first[1:], second[1:])
    assert (second[-1] <= other.train_counts).all()


def test_the_label_names_the_rule():
    words = ("engine=inline", "strategy=active", "strategy.active.query={name: badge}")
    assert row_label(config(*words), "none") == "active_badge"
    assert row_label(config("engine=inline", "strategy=fairfal"), "none") == "fairfal"
    assert row_label(config("engine=inline", "strategy=coreset"), "none") == "coreset_random"
