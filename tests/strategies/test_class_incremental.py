"""Class-incremental learning as a run: what each phase is trained on, what a client keeps, what is counted."""

import json

import numpy as np
import pytest
import torch
from small_runs import config, launch_in

from fedimb.cli.output.results import RunFinished
from fedimb.clientapp.local_training import LocalTraining
from fedimb.errors import ConfigError
from fedimb.report.html.run import study_of_run
from fedimb.report.panel import panels
from fedimb.rundir.folder import RunFolder
from fedimb.selection.budgets import apportion
from fedimb.study.collect import read_run
from fedimb.study.design import Costs

PHASED = ("engine=inline", "partition=class_incremental", "strategy=class_incremental", "partition.phases=3")


@pytest.fixture
def trained(monkeypatch):
    """What every client trained on, in the order trained: (client, round, labels, phase, steps)."""
    seen = []
    prepare = LocalTraining.prepare

    def recorded(self, context, evaluate):
        prepared = prepare(self, context, evaluate)
        rows = context.data.rows("trained_on").copy()
        seen.append((context.client, context.round, rows, prepared.work.y.numpy().copy(), prepared.spec.steps))
        return prepared

    monkeypatch.setattr(LocalTraining, "prepare", recorded)
    return seen


def of(result, name):
    return json.loads((result.folder / "artifacts" / name).read_text())


def test_a_phase_is_trained_on_its_classes_and_the_memory_and_that_is_what_counts(tmp_path, trained):
    result = launch_in(
        tmp_path, *PHASED, "strategy.class_incremental.memory=9", "strategy.class_incremental.rounds=[1,2,1]",
        "rounds=4", "calibration=[none,la_post]", "local.batch_size=32",
    )  # fmt: skip
    phases = [set(own) for own in result.phases["classes"]]
    phase_of_round = {1: 0, 2: 1, 3: 1, 4: 2}
    last, labels = {}, {}
    for client, number, rows, y, steps in trained:
        now = phase_of_round[number]
        new = np.isin(y, list(phases[now]))
        before = set().union(*phases[:now])
        assert set(y[~new]) <= before
        assert (~new).sum() <= 9
        assert steps == -(-len(y) // 32)
        if number in (2, 4):  # the memory is chosen among the rows of the phase before, and of its memory
            assert set(rows[~new]) <= last[client]
            have = torch.bincount(torch.from_numpy(labels[client]), minlength=10)
            share = apportion(have, torch.ones(10), min(9, int(have.sum())))
            assert np.bincount(y[~new], minlength=10).tolist() == share.tolist()
        if number == 3:  # and stays as it is within a phase
            assert set(rows) == last[client]
        last[client], labels[client] = set(rows), y
    in_last = sum(np.bincount(y, minlength=10) for _, number, _, y, _ in trained if number == 4)
    np.testing.assert_array_equal(result.prior_counts, in_last)
    table = of(result, "class_incremental.json")
    assert table["rows_by_phase"][2] == in_last.tolist()
    assert sum(table["memory_by_phase"][0]) == 0

    lines = [line["metrics"] for line in RunFolder(result.folder).metrics() if line["row"] == result.rows[0].label]
    assert [line["data/phase"] for line in lines] == [1, 2, 2, 3]
    own = result.phases["rows"][result.rows[0].label]
    ends = [[lines[i][f"test/phase_recall/{j}"] for j in (1, 2, 3)] for i in (0, 2, 3)]
    assert own["recall"] == ends
    lost = [max(ends[0][j], ends[1][j]) - ends[2][j] for j in (0, 1)]
    assert own["forgetting"] == pytest.approx(lost)
    assert result.rows[0].final["forgetting"] == result.metrics["forgetting"] == pytest.approx(np.mean(lost))
    first, _ = read_run(result.folder, "a", Costs())
    assert (first.phased, first.score("forgetting")) == (True, pytest.approx(np.mean(lost)))
    confusion = result.confusion / result.confusion.sum(1, keepdims=True)
    assert ends[2][0] == pytest.approx(np.diag(confusion)[sorted(phases[0])].mean())
    assert "mean forgetting" in panels(result)
    assert RunFinished.from_result(result).phases.rows[result.rows[0].label].recall == ends


def test_without_a_memory_nothing_of_earlier_phases_is_trained_on(tmp_path, trained):
    words = ("strategy.class_incremental.memory=0", "partition.order=rare_first")
    result = launch_in(tmp_path, *PHASED, *words, "partition.rows={name: pathological}")
    for _, number, _, y, steps in trained:
        assert set(y) <= set(result.phases["classes"][number - 1])
        assert bool(steps) == bool(len(y))  # a client without rows of the phase is idle, and the run goes on
    assert any(not len(y) for *_, y, _ in trained)


@pytest.mark.parametrize("rule", ["k_center", "random", "{name: el2n}", "mmd_greedy"])
@pytest.mark.slow
def test_other_rules_choose_the_memory(tmp_path, rule):
    named = rule if rule.startswith("{") else f"{{name: {rule}}}"
    words = (f"strategy.class_incremental.rule={named}", "strategy.class_incremental.epochs=2")
    result = launch_in(tmp_path, *PHASED, *words, "strategy.class_incremental.share=rule")
    table = of(result, "class_incremental.json")
    assert all(sum(own) <= 20 for own in table["memory_by_client"].values())
    assert (table["selection_steps"] > 0) == ("el2n" in rule)


def test_all_classes_at_once_on_phased_data_have_recalls_by_phase_and_no_forgetting(tmp_path):
    result = launch_in(tmp_path, *PHASED[:2], "strategy=plain", "rounds=1")
    assert result.phases == {}
    assert "phase_recall/2" in result.metrics
    assert "forgetting" not in result.metrics
    said = "phases were not trained one after the other: all classes were trained at once"
    assert said in panels(result)
    assert study_of_run(result.folder).facts["phases"] == said
    assert '"trained": "at once"' in (result.folder / "journal.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rounds=4"], "set rounds=3, or the rounds of each"),
        (["strategy.class_incremental.rounds=[1,1]"], "3 numbers that add up to it"),
        (["strategy.class_incremental.rule={name: full}"], "keeps every row"),
        (["strategy.class_incremental.rule={name: fedcs}"], "of the whole federation"),
        (["data.test={name: none}", "data.validation=0.3"], "set data.test"),
        (["pace=deadline"], "use pace=sync"),
        (["pace.clock=true"], "set pace.clock=false"),
        (["loss=balanced_softmax", "prior.provenance=oracle"], "set prior.provenance=clear_sum"),
        (["loss=balanced_softmax", "prior.provenance=estimated"], "counts estimated by the phase before"),
        (["loss=balanced_softmax", "prior.provenance=secure_sum"], "set prior.provenance=clear_sum"),
        (["calibration=la_post", "calibration.la_post.tau=temperature"], "give tau as a number"),
        (["aggregation_weight=original"], "set aggregation_weight=view"),
        (["strategy=[plain,class_incremental]"], r"use strategy=\[class_incremental,plain\]"),
        (["strategy=[class_incremental,coreset]"], "may read or count rows of others"),
        (["strategy=[active,class_incremental]"], "may read or count rows of others"),
        (["strategy=plain", "aggregator.objectives=[cfg_grad]"], "or the objective 'grad_reweight'"),
    ],
)
def test_what_does_not_go_with_phases_is_refused_before_any_work(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        launch_in(tmp_path, *PHASED, *words)
    assert not (tmp_path / "runs").exists()


def test_data_without_phases_are_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"set partition=class_incremental 'partition.rows=\{name: dirichlet"):
        launch_in(tmp_path, "strategy=class_incremental", "partition=dirichlet")
    assert not (tmp_path / "runs").exists()


def test_between_hospitals_phases_are_refused():
    from fedimb.config.load import to_json
    from fedimb.deploy.study_plan.plan import site_config

    with pytest.raises(ConfigError, match="partition=class_incremental says in which phase simulated clients"):
        site_config(to_json(config(*PHASED)))
