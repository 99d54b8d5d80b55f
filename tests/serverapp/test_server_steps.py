"""What a server trains is a cost: its optimiser steps are counted once each, and studies show them."""

import pytest
from small_runs import launch_in, words_of_methods

from fedimb.errors import RunFailed
from fedimb.report.html.numbers import Row, defined
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume
from fedimb.serverapp.loop import Loop
from fedimb.study.collect import read_run
from fedimb.study.design import Costs

BATCHES = -(-10 * 30 // 8)  # of the server's rows, 30 of each of ten classes
STEPS = {
    "public": (["strategy.public.use=head", "strategy.public.head_epochs=3"], 3 * -(-10 * 30 // 64)),
    "feddf": (
        ["strategy.feddf.epochs=2", "strategy.feddf.batch_size=8", "strategy.feddf.agreement=false"],
        2 * 2 * BATCHES,  # in each of two rounds
    ),
    "herocrystal": (
        ["strategy.herocrystal.epochs=2", "strategy.herocrystal.batch_size=8", "strategy.herocrystal.agreement=false"],
        2 * BATCHES,
    ),
    "fediic": (["strategy.fediic.steps=7"], 2 * 7),
    "oneround": (
        ["strategy.oneround.head=fishermix", "strategy.oneround.draws=500", "strategy.oneround.min_count=1"],
        40 * -(-10 * 500 // 2048),
    ),
}


@pytest.mark.parametrize("method", STEPS)
def test_steps_at_the_server_are_counted_in_the_result_and_in_studies(tmp_path, method):
    words, steps = STEPS[method]
    run = launch_in(tmp_path, *words_of_methods(method), "rounds=2", *words)
    assert run.server_steps == steps
    (result,) = read_run(run.folder, "a", Costs())
    assert result.score("server_steps") == steps
    assert "server_steps" in defined([Row(1, "a", (result,))])
    assert RunFolder(run.folder).metrics()[-1]["metrics"]["server/steps"] == steps


def test_a_stopped_run_counts_no_step_twice(tmp_path, monkeypatch):
    words = [*words_of_methods("creff"), "strategy.creff.min_count=1", "rounds=2"]
    done, calls = Loop.round_done, []

    def stops(self, number):
        calls.append(number)
        if len(calls) == 2:
            raise RunFailed("stopped")
        done(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "round_done", stops)
        with pytest.raises(RunFailed, match="stopped"):
            launch_in(tmp_path, *words)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    # In each of two rounds two steps on the features of each of ten classes, and two on a head of 30 features.
    assert resume(folder).server_steps == 2 * (2 * 10 + 2)


def test_a_server_that_averages_takes_no_step_and_reports_have_no_column_of_them(tmp_path):
    run = launch_in(tmp_path, "engine=inline", "rounds=1")
    assert run.server_steps == 0
    (result,) = read_run(run.folder, "a", Costs())
    assert "server_steps" not in defined([Row(1, "a", (result,))])
    assert "server/steps" not in RunFolder(run.folder).metrics()[-1]["metrics"]
