"""`fedimb data` as a newcomer uses it, without the rest of the command line."""

import itertools

import pytest
import yaml

from fedimb.cli import main
from fedimb.cli.main import _parser
from fedimb.errors import ConfigError, DataError


def run(*words):
    args = _parser("data").parse_args(["data", *words])
    return args.handler(args).exit_code


def test_describe_prints_and_draws(capsys, tmp_path):
    picture = tmp_path / "who.png"
    settings = ["clients.count=3", "partition.minority_placement=concentrated", "partition.minority_clients=1"]
    assert run("describe", *settings, "--plot", str(picture)) == 0
    text = capsys.readouterr().out
    assert text.startswith("3 clients, 10 classes, 305 rows (train 305, validation 0), test 600\n")
    rare = [line.split() for line in text.splitlines() if " < " in line]
    assert len(rare) == 3
    assert all(words[-3:] == ["1", "1.0", "100%"] for words in rare)  # holders, N_eff, top-1
    assert "warning: only one client holds classes" in text
    assert f"picture: {picture}" in text
    assert 0 < picture.stat().st_size < 200_000


def test_describe_draws_in_the_terminal(capsys):
    assert run("describe", "clients.count=2", "partition.alpha=0.1", "--plot") == 0
    text = capsys.readouterr().out
    assert "\nwho holds what: training rows, head to tail\nclient \\ class" in text
    assert "picture:" not in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["partition.minority_placement=spred"], "Did you mean 'spread'"),
        (["partition.minority_placement=absent", "partition.minority_clients=10"], "at most 9 of 10"),
        (["partition.alpa=0.1"], "Did you mean 'alpha'"),
        (["partition=by_column", "partition.sites=[1]"], "'sites' is passed by fedimb itself"),
        (["--plot", "data=digits"], "put --plot at the end to draw in the terminal"),
        (["--plot", "who.pdf"], "give a name ending in .png or .svg"),
    ],
)
def test_wrong_settings_are_refused_as_run_refuses_them(words, says):
    with pytest.raises(ConfigError, match=says) as refused:
        run("describe", *words)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_a_source_without_sites_cannot_be_cut_by_them():
    with pytest.raises(DataError, match="needs a site column"):
        run("describe", "partition=by_column")


def test_check_reads_a_data_group_and_tries_its_cuts(capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    group = {
        "source": {"name": "synthetic_table", "rows": 90, "features": 4, "classes": 3},
        "test": {"name": "balanced", "per_class": 10},
    }
    file.write_text(yaml.safe_dump(group))
    assert run("check", str(file)) == 0
    text = capsys.readouterr().out
    assert text.startswith("source: synthetic_table\n90 rows of 4 float32\n")
    assert "cut with seed 0: 30 rows to test, 60 to train" in text
    group["test"]["per_class"] = 30
    file.write_text(yaml.safe_dump(group))
    with pytest.raises(DataError, match="has 30 rows: a balanced test set needs 30 and training 1"):
        run("check", str(file))
    assert "90 rows of 4" in capsys.readouterr().out  # what was read is shown before what cannot be cut


@pytest.mark.parametrize("order", itertools.permutations(["t.csv", "target=y", "--source=tabular_csv"]))
def test_check_takes_file_settings_and_options_in_any_order(capsys, tmp_path, monkeypatch, order):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("a,y\n" + "1,no\n2,yes\n" * 5)
    assert main(["data", "check", *order]) == 0
    assert "source: tabular_csv" in capsys.readouterr().out


def test_clients_far_beyond_the_rows_are_warned_about(capsys, caplog, monkeypatch):
    monkeypatch.setattr("fedimb.data.findings.stage._said", set())
    assert main(["data", "describe", "clients.count=5000"]) == 0
    (said,) = [record.getMessage() for record in caplog.records if "clients.count" in record.getMessage()]
    assert said.startswith("note clients_beyond_rows: clients.count=5000: for ")
    assert said.endswith("hold none and never train; set a smaller clients.count")
    caplog.clear()
    assert main(["data", "describe"]) == 0
    assert not [record for record in caplog.records if "clients.count" in record.getMessage()]


WBC = ["data=tabular_csv", "data.source.files=[wards.csv]", "data.source.target=dx", "clients.count=2"]


@pytest.fixture
def wards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i},r{i},2024-01-{1 + i // 2:02},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "wards.csv").write_text("\n".join(["age,code,day,dx", *rows]) + "\n")
    return [*WBC, "data.source.id_column=code", "data.source.time_column=day"]


def test_a_split_is_saved_and_read_back(wards, tmp_path, capsys):
    rule = "data.test={name: temporal, since: '2024-01-16'}"
    assert run("split", *wards, rule, "--to", "s.csv") == 0
    assert "s.csv: 40 rows; train 30, test 10" in capsys.readouterr().out
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert (lines[1], lines[-1]) == ("id,side,client", "r39,test,")
    assert run("describe", *wards, "data.test={name: file, path: s.csv}") == 0
    assert "(train 30, validation 0), test 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["split", "--to", "wards.csv"], "exists already"),
        (["split", "--to", "s.txt"], "ending in .csv"),
        (["split", "--to", "no/s.csv"], "there is no folder no"),
        (["split", "seed=1", "--run", "x", "--to", "s.csv"], "leave out seed=1"),
        (["describe", "--croissant", "c.csv"], "ending in .json"),
    ],
)
def test_files_to_write_are_checked_first(wards, words, says):
    with pytest.raises(ConfigError, match=says):
        run(*words)


def test_metadata_are_written_for_other_tools(wards, tmp_path, capsys):
    pytest.importorskip("mlcroissant")
    assert run("describe", *wards, "--croissant", "wards.json") == 0
    assert "croissant: wards.json" in capsys.readouterr().out
    assert '"name": "wards"' in (tmp_path / "wards.json").read_text()
