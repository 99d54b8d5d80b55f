"""``fedimb show``, ``track sync`` and ``run --resume`` by short names; runs that are not finished."""

from fedimb.cli import main
from fedimb.rundir.folder import RunFolder


def test_a_finished_run_by_the_beginning_of_its_name(copy, capsys):
    path = copy()
    assert main(["show", path.name[:8]]) == 0
    by_name = capsys.readouterr().out
    assert main(["show", str(path)]) == 0
    assert capsys.readouterr().out == by_name
    assert "minority recall" in by_name
    assert str(path) in by_name


def test_who_holds_what_and_the_curves_are_drawn_below(copy, capsys):
    path = copy()
    assert main(["show", path.name, "--plot"]) == 0
    drawn = capsys.readouterr().out.partition("\nwho holds what: training rows, head to tail\nclient")[2]
    assert "learning curves: rounds 1 to 2" in drawn
    assert "\n1 fedavg (control)" in drawn
    assert "\n2 la_post" in drawn


def test_plot_is_refused_where_nothing_is_drawn(home, capsys):
    assert main(["run", "--dry-run", "--plot"]) == 2
    assert main(["sweep", "seed=0,1", "--dry-run", "--plot"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(", and ")[0] for line in said] == ["fedimb: --plot draws finished runs"] * 2


def test_a_waiting_run_says_why_and_how_to_go_on(copy, capsys):
    path = copy(status="waiting")
    assert main(["show", "fedavg"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("fedavg, la_post, seed 0: waiting\n")
    assert "rounds      2 of 2" in out
    assert "reason      labels needed" in out
    assert "so far      macro recall 0." in out
    assert f"continue    fedimb run --resume {path}\n" in out


def test_a_killed_run_is_told_from_one_that_runs(copy, capsys):
    path = copy(status="running")
    (path / "metrics.jsonl").unlink()
    assert main(["show", "fedavg"]) == 0
    out = capsys.readouterr().out
    assert "seed 0: killed" in out
    assert "rounds      0 of 2" in out
    assert "so far" not in out
    folder = RunFolder.open(path)
    folder.lock()
    try:
        assert main(["show", "fedavg"]) == 0
    finally:
        folder.unlock()
    out = capsys.readouterr().out
    assert "seed 0: running" in out
    assert "--resume" not in out


def test_resume_by_a_short_name(copy, capsys):
    path = copy()
    before = (path / "result.json").read_bytes()
    assert main(["run", "--resume", "fedavg-s0"]) == 0
    assert str(path) in capsys.readouterr().out
    assert (path / "result.json").read_bytes() == before
