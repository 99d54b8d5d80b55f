"""``fedimb compare``: from a file, from folders, and what it says when it cannot."""

import csv
import json

import pytest

from fedimb.cli import main

BASE = ["data.n_max=60", "clients.count=3", "rounds=2", "local.epochs=1", "tracking=none", "evaluation.bootstrap=0"]
QUICK = ["--workers", "0", "--no-report"]


@pytest.fixture
def study(home):
    """Write study.yaml; its name is ``mine``."""

    def write(**more):
        tree = {"name": "mine", "base": BASE, "references": ["majority", "fedavg", "la_post"], "seeds": 2} | more
        (home / "study.yaml").write_text(json.dumps(tree))
        return "study.yaml"

    return write


def rows(home, name="mine"):
    return list(csv.DictReader((home / "runs" / name / "rows.csv").read_text().splitlines()))


def test_it_says_what_it_would_do_and_does_nothing(study, home, capsys):
    path = study(grid={"partition.alpha": [0.5, 0.1]}, tune={"grid": {"local.lr": [0.1, 0.2]}, "seeds": 3})
    assert main(["compare", path, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "mine: 2 settings, 3 rows, 2 seeds"
    assert [line.split()[-1] for line in out.splitlines() if " setting " in line] == ["alpha=0.5", "alpha=0.1"]
    assert [line.split()[-1] for line in out.splitlines() if " row " in line] == ["majority", "fedavg", "la_post"]
    assert "12 results from 8 runs" in out
    assert not (home / "runs").exists()


def test_a_tuning_point_that_cannot_run_is_refused_before_work_by_a_dry_run_too(study, home, capsys):
    tries = {"words": ["aggregator=fedprox"], "tune": {"aggregator.proximal_mu": [0.1, -1]}}
    tuned = {"grid": {"local.lr": [0.1, 0.2]}, "seeds": 1, "configurations": 4}
    path = study(rows={"prox": tries}, references=["majority"], grid={"partition.alpha": [0.5]}, tune=tuned)
    runs, plans = (["compare", path], ["tune", path]), (["compare", "--dry-run", path], ["tune", "--dry-run", path])
    for command in (*runs, *plans, ["study", "register", path]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert "row 'prox' in setting 'alpha=0.5' with local.lr=0.1 aggregator.proximal_mu=-1" in said.err
        assert said.out == ""
    assert not (home / "runs").exists()


def test_a_dry_run_refuses_a_bar_that_the_run_refuses(study, capsys):
    bar = {"rows": ["la_post"], "min_counts": [1], "seeds": 1}
    path = study(base=[*BASE, "data.test={name: none}"], bar=bar)
    for options in (["--dry-run"], QUICK):
        assert main(["compare", path, *options]) == 2
        assert "leaves none to choose the bar on" in capsys.readouterr().err


def test_tables_and_files_are_written_and_a_second_call_runs_nothing(study, home, capsys):
    path = study(rows={"focal": ["loss=focal"]})
    assert main(["compare", path, *QUICK]) == 0
    first = capsys.readouterr().out
    assert {"rows.csv", "table.txt", "statistics.csv", "study.json"} <= {p.name for p in (home / "runs/mine").iterdir()}
    assert not (home / "runs/mine/report.html").exists()
    assert "against la_post" in first
    assert [(row["label"], row["seed"], row["status"]) for row in rows(home)] == [
        (label, seed, "finished") for seed in "01" for label in ("fedavg", "la_post", "focal", "majority")
    ]
    before = {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("result.json")}
    assert len(before) == 4
    assert main(["compare", path, *QUICK]) == 0
    assert capsys.readouterr().out == first
    assert {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("result.json")} == before
    assert main(["compare", "runs/mine", *QUICK]) == 0  # the same from its folder
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_a_row_more_leaves_what_is_there(study, home, capsys):
    assert main(["compare", study(), *QUICK]) == 0
    before = {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("result.json")}
    assert main(["compare", study(rows={"focal": ["loss=focal"]}, seeds=3), *QUICK]) == 0
    after = {p: p.stat().st_mtime_ns for p in (home / "runs").rglob("result.json")}
    assert before.items() < after.items()
    assert len(after) == 6


@pytest.mark.slow
def test_a_study_is_tuned_before_it_is_compared(study, home, capsys):
    path = study(references=["fedavg"], seeds=1, tune={"grid": {"local.lr": [0.1, 0.4]}, "seeds": 2, "extend": 0})
    assert main(["compare", path, *QUICK]) == 0
    (row,) = rows(home)
    tried = list(csv.DictReader((home / "runs/mine/tuning.csv").read_text().splitlines()))
    assert [t["words"] for t in tried] == ["local.lr=0.1", "local.lr=0.4"]
    (chosen,) = [t["words"] for t in tried if t["chosen"] == "1"]
    best = max(tried, key=lambda t: float(t["lower_quartile"]))
    assert chosen == best["words"]
    config = json.loads(next((home / "runs/mine").glob("fedavg-*/config.json")).read_text())
    assert f"local.lr={config['local']['lr']}" == chosen
    assert row["status"] == "finished"
    assert {p.name for p in (home / "runs").iterdir()} == {"mine", "mine.tuning"}


@pytest.mark.slow
def test_a_diverged_row_is_counted_and_shown_and_not_an_error(study, home, capsys):
    path = study(rows={"wild": ["local.lr=1e38"]}, control="fedavg")
    assert main(["compare", path, *QUICK]) == 0
    taken = capsys.readouterr()
    assert "wild" in taken.out
    assert "0/2" in next(line for line in taken.out.splitlines() if line.startswith("wild"))
    assert "2 runs did not finish" in taken.err
    assert taken.err.count("diverged: wild, default, seed") == 2
    assert [row["status"] for row in rows(home) if row["label"] == "wild"] == ["diverged"] * 2


def test_a_failed_run_is_reported_at_the_end_with_exit_code_1(study, home, capsys, monkeypatch):
    from fedimb.study import work

    def compute(kind, config):
        raise OSError("no more disk")

    monkeypatch.setattr(work, "_compute", compute)
    assert main(["compare", study(), *QUICK]) == 1
    taken = capsys.readouterr()
    assert taken.err.rstrip().splitlines()[-1] == "  failed: majority, default, seed 1: OSError: no more disk"
    assert {row["status"] for row in rows(home) if row["label"] != "majority"} == {"finished"}
    assert {row["error"] for row in rows(home) if row["label"] == "majority"} == {"OSError: no more disk"}
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.yaml"], "missing.yaml does not exist"),
        (["study.yaml", "roundz=3"], "no setting 'roundz'. Did you mean 'rounds'?"),
        (["study.yaml", "seed=3"], "set seeds: in its file"),
        (["study.yaml", "--workers", "-1"], "--workers -1: give 1 or more"),
        (["mlflow:nothing"], "MLflow"),
        ([".", "rounds=3"], "existing runs keep theirs"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(study, capsys, words, message):
    study()
    assert main(["compare", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("fedimb: ")
    assert err.count("\n") == 1


def test_a_folder_for_models_is_not_taken_for_that_of_a_study(study, home, capsys):
    """It was ignored without a word, and the runs went to runs/."""
    assert main(["compare", study(), *QUICK, "--output-dir", "elsewhere"]) == 2
    assert "output_dir=elsewhere" in capsys.readouterr().err
    assert not (home / "runs").exists()


def test_a_folder_without_runs(home, capsys):
    assert main(["compare", "."]) == 1
    assert "there are no runs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_registered_study_over_two_data_sets_from_its_file_to_its_report(home, capsys):
    tree = {
        "name": "two",
        "base": [*BASE, "partition.alpha=10"],
        "references": ["la_post", "uniform+la_post", "ncm", "lda"],
        "rows": {"focal": ["loss=focal"]},
        "data_sets": ["digits", "glass"],
        "settings": {"one": [], "two": ["partition.alpha=1"]},
        "seeds": 2,
        "bar": {"seeds": 1, "min_counts": [1]},
        "registration": {"contrasts": [["focal", "bar"], ["focal", "la_post"]], "margin_reason": "one row of 60"},
    }
    (home / "study.yaml").write_text(json.dumps(tree))
    assert main(["study", "register", "study.yaml"]) == 0
    assert "commit it before the runs" in capsys.readouterr().out
    assert main(["compare", "study.yaml", "--workers", "0", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["registration"], answer["registration_reasons"]) == ("registered", [])
    assert len(answer["bars"]) == 4
    folder = home / "runs" / "two"
    assert {"bar.csv", "against_bar.csv", "data_sets.csv", "contrasts.csv", "report.html",
            "critical_difference_macro_recall.svg"} <= {p.name for p in folder.iterdir()}  # fmt: skip
    contrasts = list(csv.DictReader((folder / "contrasts.csv").open()))
    assert [(c["first"], c["second"], c["sets"], c["status"]) for c in contrasts] == [
        ("focal", "bar", "2", "registered"),
        ("focal", "la_post", "2", "registered"),
    ]
    bars = {bar["setting"]: bar for bar in answer["bars"]}
    macro = {(row["setting"], row["label"], row["seed"]): float(row["macro_recall"]) for row in rows(home, "two")}
    by_set = {name: [] for name in ("digits", "glass")}
    for setting, bar in bars.items():
        assert bar["validation"][bar["label"]] == max(bar["validation"].values())
        gaps = [macro[setting, "focal", seed] - macro[setting, bar["label"], seed] for seed in ("0", "1")]
        by_set[setting.split()[0]].append(sum(gaps) / 2)
    wanted = sum(sum(gaps) / 2 for gaps in by_set.values()) / 2
    assert float(contrasts[0]["difference"]) == pytest.approx(wanted, abs=1e-4)
    page = (folder / "report.html").read_text()
    assert "Against the bar" in page
    assert "This study is registered" in page
    assert main(["compare", "runs/two", "--no-report"]) == 0  # the same from its folder
    assert "registered 20" in capsys.readouterr().out
    (home / "study.yaml").write_text(json.dumps(tree | {"seeds": 1}))
    assert main(["compare", "study.yaml", *QUICK]) == 0
    taken = capsys.readouterr()
    assert "exploratory: changed since it was registered: seeds ([0, 1] -> [0])" in " ".join(taken.out.split())
