"""``fedimb compare A B`` and ``fedimb report A B``: what the words may name, and what is refused in one line."""

import json
import shutil

import pytest

pytest.importorskip("jinja2")

from seals import unfinished, unseal
from small_runs import launch_in

from fedimb.cli import main


@pytest.fixture(scope="session")
def four(cache_dir, tmp_path_factory):
    """Two seeds of two rows, in the study ``default``."""
    where = tmp_path_factory.mktemp("four")
    for seed in (0, 1):
        for words in (["calibration=[none,la_post]"], ["loss=balanced_softmax"]):
            launch_in(where, "engine=inline", "rounds=1", "clients.count=2", f"seed={seed}", *words)
    return where / "runs"


@pytest.fixture
def runs(four, home):
    """A copy of the four runs in the working folder: name without its hash -> folder."""
    shutil.copytree(four, home / "runs")
    return {path.name.rpartition("-")[0]: path for path in (home / "runs" / "default").iterdir()}


def one_line(capsys):
    err = capsys.readouterr().err
    assert err.startswith("fedimb: ")
    assert err.count("\n") == 1
    return err


def test_two_runs_by_name_and_by_path(runs, capsys):
    assert main(["compare", "fedavg-s0", "balanced_softmax-s0"]) == 0
    out = capsys.readouterr().out
    assert "On the same 600 test rows " in out
    assert "recall differs in" in out
    assert main(["compare", str(runs["fedavg-s0"]), runs["balanced_softmax-s0"].name.rpartition("-")[2]]) == 0
    assert capsys.readouterr().out.replace(str(runs["fedavg-s0"]), "A").splitlines()[3:] == out.splitlines()[3:]


def test_rows_of_one_run(runs, capsys):
    assert main(["compare", "fedavg-s0", "fedavg-s0:la_post"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("A          fedavg, seed 0: ")
    assert out.splitlines()[1].startswith("B          la_post, seed 0: ")
    assert "* marks the minority classes." in out
    assert main(["compare", "fedavg-s0", "fedavg-s0:fedavg"]) == 2
    assert "are the same row of the same run" in one_line(capsys)
    assert main(["compare", "fedavg-s0", "fedavg-s0:la_pots"]) == 2
    assert "has no row 'la_pots'. Did you mean 'la_post'?" in one_line(capsys)


@pytest.mark.slow
def test_rows_of_two_studies_and_a_row_without_a_model(home, capsys):
    base = ["data.n_max=60", "clients.count=2", "rounds=1", "local.epochs=1", "tracking=none", "evaluation.bootstrap=0"]
    for name, more in (("one", []), ("two", ["local.lr=0.4"])):
        tree = {"name": name, "base": [*base, *more], "rows": {}, "references": ["fedavg", "majority"], "seeds": 1}
        (home / f"{name}.yaml").write_text(json.dumps(tree))
        assert main(["compare", f"{name}.yaml", "--workers", "0", "--no-report"]) == 0
    capsys.readouterr()
    assert main(["compare", "one:fedavg", "two:fedavg"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "between one:fedavg and two:fedavg" in out
    assert "1 seed: the smallest p that 1 pair can reach is 1" in out
    assert main(["compare", "one:fedavg", "one:majority"]) == 2
    assert "one:majority is computed, not run" in one_line(capsys)


def test_rows_of_a_study_are_tested_seed_by_seed(runs, capsys):
    assert main(["compare", "default:fedavg", "runs/default:balanced_softmax"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Over 2 seeds no difference in minority recall between fedavg and balanced_softmax is shown" in out
    assert "Seeds are not pooled as rows" in out
    assert "2 seeds: the smallest p that 2 pairs can reach is .5" in out


def test_the_report_of_two_models(runs, home, capsys):
    assert main(["report", "fedavg-s0", "balanced_softmax-s0"]) == 0
    place = capsys.readouterr().out.strip()
    assert place == f"runs/default/{runs['fedavg-s0'].name}/against-{runs['balanced_softmax-s0'].name}.html"
    assert "On the same 600 test rows" in (home / place).read_text()
    assert main(["report", "default:fedavg", "default:balanced_softmax", "--to", "b.html"]) == 0
    assert "Over 2 seeds" in (home / "b.html").read_text()
    assert main(["report", "default:fedavg", "default:balanced_softmax"]) == 0
    assert (home / "runs/default/fedavg-against-balanced_softmax.html").is_file()


def test_other_rows_are_refused(runs, capsys):
    assert main(["compare", "fedavg-s0", "fedavg-s1"]) == 2
    assert "were not scored on the same rows (600 and 600, " in one_line(capsys)


def test_a_changed_data_set_is_refused(runs, capsys):
    from dataclasses import replace

    from fedimb.rundir.folder import RunFolder
    from fedimb.rundir.row_scores import RowScores

    path = unseal(runs["fedavg-s0"])
    replace(RowScores.read(path, "fedavg"), test_set="0" * 64).write(RunFolder(path), "fedavg")
    assert main(["compare", "fedavg-s0", "balanced_softmax-s0"]) == 2
    assert "the data changed between the runs" in one_line(capsys)


def test_a_run_scored_by_its_clients_is_refused_in_words(home, capsys):
    launch_in(home, "engine=inline", "rounds=1", "clients.count=2", "data.test={name: none}", "data.validation=0.3")
    assert main(["compare", "fedavg-s0", "fedavg-s0"]) == 2
    assert "scores of patients do not leave a site" in one_line(capsys)


def test_a_run_without_scores_or_with_damaged_ones(runs, capsys):
    path = runs["fedavg-s0"] / "artifacts/rows/fedavg/test_scores.npz"
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    assert main(["compare", "fedavg-s0", "balanced_softmax-s0"]) == 1
    assert "test_scores.npz was changed since it was written" in one_line(capsys)
    unseal(runs["fedavg-s0"])
    assert main(["compare", "fedavg-s0", "balanced_softmax-s0"]) == 1
    assert "test_scores.npz is damaged" in one_line(capsys)
    shutil.copyfile(runs["fedavg-s1"] / "artifacts/rows/fedavg/test_scores.npz", path)
    assert main(["compare", "fedavg-s0", "balanced_softmax-s0"]) == 1
    assert "do not give the confusion matrix in result.json" in one_line(capsys)
    path.unlink()
    assert main(["compare", "fedavg-s0", "balanced_softmax-s0"]) == 1
    assert "no scores of its test rows (it is of an earlier version" in one_line(capsys)


def test_a_failed_seed_is_named_and_nothing_is_claimed(runs, capsys):
    from fedimb.rundir.folder import RunFolder

    unfinished(runs["fedavg-s1"])
    RunFolder(runs["fedavg-s1"]).set_status("failed", "no more disk")
    assert main(["compare", "default:fedavg", "default:balanced_softmax"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Over 1 seed nothing is claimed, as 1 more lack a run" in out
    assert "seed 1 is missing: fedavg failed (no more disk)" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["fedavg-s0", "nothing"], 1, "nothing is not a run folder"),
        (["fedavg-s0", "default:fedavg"], 2, "give two runs, or a row of a study"),
        (["default", "default:fedavg"], 2, "names no row of the study"),
        (["default:fedavg", "default:focal"], 2, "names no row of the study"),
        (["default:fedavg", "default:fedavg"], 2, "is given twice"),
        (["fedavg-s0", "balanced_softmax-s0", "rounds=3"], 2, "give two models, and no settings"),
        (["fedavg-s0", "balanced_softmax-s0", "fedavg-s1"], 2, "give two models, and no settings"),
        (["fedavg-s0", "balanced_softmax-s0", "--dry-run"], 2, "--dry-run is for studies"),
        (["mlflow:default", "fedavg-s0"], 2, "a paired test reads run folders"),
    ],
)
def test_what_cannot_be_is_one_line(runs, capsys, words, code, message):
    assert main(["compare", *words]) == code
    assert message in one_line(capsys)


def test_settings_still_go_to_a_study(home, capsys):
    (home / "study.yaml").write_text(json.dumps({"name": "mine", "rows": {"fedavg": []}, "references": False}))
    assert main(["compare", "study.yaml", "rounds=2", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("mine: 1 settings, 1 rows")


def test_two_runs_of_one_label_are_told_apart(runs, capsys):
    other = runs["fedavg-s0"].with_name("other")
    shutil.copytree(runs["fedavg-s0"], other)
    assert main(["compare", "fedavg-s0", "other"]) == 0
    out = capsys.readouterr().out
    assert "fedavg A and fedavg B find the same rows of the minority classes" in " ".join(out.split())
    assert out.splitlines()[1].startswith("B          fedavg B, seed 0: ")
