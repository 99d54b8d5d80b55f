"""A mean over the last rounds is over rounds of one training: the last phase, cycle, or what follows a warm-up."""

import numpy as np
import pytest
from small_runs import launch_in, needs_of_methods

from fedimb.rundir.folder import RunFolder
from fedimb.study.collect import read_run
from fedimb.study.design import Costs

PARTS = {
    "phases": ("class_incremental", ("partition.phases=3", "strategy.class_incremental.rounds=[2,1,2]"), 4),
    "labels": ("fedrela", ("strategy.fedrela.after=0.6",), 4),
    "warm-up": ("scope", ("strategy.scope.warmup=3",), 4),
    "warm-up, then a choice": ("coreset", ("strategy.coreset.warmup=3",), 4),
    "cycles": ("active", ("strategy.active.cycles=2", "strategy.active.budget=4", "rounds=6"), 4),
    "cycles without a new model": (
        "active",
        ("strategy.active.cycles=2", "strategy.active.budget=4", "strategy.active.restart=false", "rounds=4"),
        3,
    ),
}
"""Method, words, and the first round of the last part."""


@pytest.mark.parametrize("case", PARTS)
def test_a_mean_holds_no_round_of_an_earlier_part(tmp_path, case):
    method, words, first = PARTS[case]
    base = ("engine=inline", "rounds=5", "evaluation.last_k=5", f"strategy={method}", *needs_of_methods(method))
    run = launch_in(tmp_path, *base, *words)
    recall = [line["metrics"]["test/macro_recall"] for line in RunFolder(run.folder).metrics()]
    assert run.metrics["macro_recall"] == np.mean(recall[first - 1 :]) != np.mean(recall[-5:])
    (row,) = read_run(run.folder, "a", Costs())
    assert row.averaged == len(recall[first - 1 :])
