import json
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.errors import ConfigError, FedimbError
from fedimb.tracking.projection import safe_name
from fedimb.tracking.store import charts_link, connect, prepare_store, reason_of, resolve_uri, shown, write_note
from fedimb.tracking.view import EXPERIMENT_TAGS, NOTE_TAG, experiment_note


@pytest.mark.slow
def test_processes_that_start_together_share_one_new_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    code = f"from fedimb.tracking.store import prepare_store; print(prepare_store({uri!r}, 'study'))"
    together = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=250) for process in together]
    assert [process.returncode for process in together] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1
    assert [err for _, err in answers] == [""] * 4
    with sqlite3.connect(tmp_path / "new" / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_experiment_groups_its_charts_by_row_and_setting(uri, tmp_path):
    first = prepare_store(uri, "study", tmp_path / "a b")
    assert prepare_store(uri, "study") == first
    experiment = connect(uri).get_experiment(first)
    assert experiment.artifact_location == (tmp_path / "a b").as_uri()
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert json.loads(experiment.tags["mlflow.sharedViewState.fedimb"])["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": tag} for tag in ("fedimb.strategy", "fedimb.setting")],
    }
    command, url = charts_link(uri, "study")
    assert command.endswith(f"mlflow ui --backend-store-uri {uri} --port 5000")
    assert url == (
        f"http://localhost:5000/#/experiments/{first}/runs"
        "?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=fedimb"
    )


def test_a_deleted_experiment_says_how_to_bring_it_back(uri):
    gone = prepare_store(uri, "study")
    connect(uri).delete_experiment(gone)
    with pytest.raises(FedimbError, match=f"mlflow experiments restore --experiment-id {gone}"):
        prepare_store(uri, "study")


def test_a_link_never_stops_a_run(tmp_path):
    assert charts_link(f"sqlite:///{tmp_path}/none.db", "study")[1] == "http://localhost:5000/"
    assert not (tmp_path / "none.db").exists()
    assert charts_link("http://127.0.0.1:9", "study") == ("", "http://127.0.0.1:9/")


def test_addresses_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(None, "runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert resolve_uri("sqlite:///here.db", "runs") == f"sqlite:///{tmp_path}/here.db"
    assert resolve_uri("sqlite:////there/m.db", "runs") == "sqlite:////there/m.db"
    assert resolve_uri("http://host:5000/", "runs") == "http://host:5000"
    assert resolve_uri("postgresql+psycopg://u@host/db", "runs") == "postgresql+psycopg://u@host/db"


@pytest.mark.parametrize(
    "wrong",
    ["mlruns", "file:///runs", "sqlit:///m.db", "sqlite://m.db", "sqlite:///", "sqlite:////a%20b/m.db"],
)
def test_an_address_mlflow_cannot_use_is_refused_at_once(wrong):
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        resolve_uri(wrong, "runs")


def test_passwords_are_not_shown():
    assert shown("http://me:secret@host:5000/x") == "http://me:***@host:5000/x"
    assert shown("http://me:secret@host:5000/x", hide_user=True) == "http://host:5000/x"
    assert charts_link("http://me:secret@127.0.0.1:9", "study") == ("", "http://127.0.0.1:9/")
    assert shown("sqlite:////a/m.db") == "sqlite:////a/m.db"


def test_help_does_not_pay_for_mlflow():
    code = "import sys, fedimb.tracking.mlflow; print('mlflow' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path("/"))
    assert done.stdout.split() == ["False", "False"], done.stderr


@given(st.text(max_size=300))
def test_any_name_becomes_one_that_mlflow_takes(name):
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(safe_name(name))
    assert len(safe_name(name)) <= 250
    assert safe_name(safe_name(name)) == safe_name(name)


def test_good_names_stay_and_changed_names_stay_apart():
    for name in ("test/recall/03", "comm/up_bytes", "a.b c:d-e", "test/recall/früh"):
        assert safe_name(name) == name
    assert len({safe_name(name) for name in ("a(b", "a[b", "a_b", "a/../b", "a//b", "x" * 251, "x" * 252)}) == 7


def test_the_shared_view_opens_rare_classes_first_and_every_chart_has_its_section():
    state = json.loads(EXPERIMENT_TAGS["mlflow.sharedViewState.fedimb"])
    charts, sections = state["compareRunCharts"], [s["uuid"] for s in state["compareRunSections"]]
    assert charts[0]["metricKey"] == "test/minority_recall"
    assert state["compareRunSections"][0]["name"] == "test"
    assert state["compareRunSections"][0]["columns"] == 1
    assert state["runListHidden"] is True
    assert {chart["metricSectionId"] for chart in charts} <= set(sections)
    assert len({chart["uuid"] for chart in charts}) == len(charts)
    assert len(EXPERIMENT_TAGS["mlflow.sharedViewState.fedimb"]) < 5000  # what older servers keep of a tag


class Tagged:
    """A client with one experiment."""

    def __init__(self):
        self.tags = {}

    def get_experiment(self, _):
        return self

    def set_experiment_tag(self, _, key, value):
        self.tags[key] = value


def test_a_description_is_kept_up_to_date_until_a_person_writes_one(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({"study": {"about": "Rare digits."}}))
    note, client = experiment_note("four", tmp_path), Tagged()
    assert note.splitlines()[0] == (
        f"Report with intervals and tests: [{tmp_path}/report.html](file://{tmp_path}/report.html)"
    )
    assert "**four**: Rare digits." in note
    assert "**other**\n" in experiment_note("other", tmp_path / "none")
    write_note(client, "1", note)
    write_note(client, "1", f"{note} Moved.")
    assert client.tags[NOTE_TAG] == f"{note} Moved."
    client.tags[NOTE_TAG] = "Mine."
    write_note(client, "1", note)
    assert client.tags[NOTE_TAG] == "Mine."


LOCKED = """(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)
(sqlite3.OperationalError) database is locked
[SQL: INSERT INTO runs (run_uuid, name) VALUES (?, ?)]
(Background on this error at: https://sqlalche.me/e/21/e3q8)"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LOCKED, "the database is locked: another program is writing to it"),
        (
            "(psycopg2.OperationalError) connection refused\n[SQL: SELECT 1]",
            "(psycopg2.OperationalError) connection refused",
        ),
        ("\n  API request failed\nmore", "API request failed"),
        ("", "MlflowException"),
    ],
)
def test_a_databases_error_is_one_line_without_sql(text, reason):
    from mlflow.exceptions import MlflowException

    assert reason_of(MlflowException(text)) == reason


def test_a_locked_store_is_one_line_and_mlflow_prints_no_traceback(uri, monkeypatch, caplog):
    from mlflow.exceptions import MlflowException

    from fedimb.tracking import store

    def locked(*args):
        logging.getLogger("mlflow.store.db.utils").error("SQLAlchemy database error\nTraceback ...")
        raise MlflowException(LOCKED)

    monkeypatch.setattr(store, "_experiment", locked)
    logging.getLogger("mlflow").propagate = True
    with pytest.raises(FedimbError) as caught:
        prepare_store(uri, "study")
    assert "cannot be used: the database is locked" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "SQLAlchemy" not in caplog.text


@pytest.mark.slow
def test_a_run_beside_a_locked_store_finishes_with_one_line_per_attempt_and_nothing_is_lost(tmp_path):
    from small_runs import SMALL

    words = [*[word for word in SMALL if not word.startswith("tracking=")], "engine=inline", f"output_dir={tmp_path}"]
    subprocess.run([sys.executable, "-m", "fedimb", "run", *words], check=True, capture_output=True)
    (first,) = (tmp_path / "default").glob("*-s0-*")
    subprocess.run([sys.executable, "-m", "fedimb", "track", "sync", str(first)], check=True, capture_output=True)
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    run = subprocess.run(
        [sys.executable, "-m", "fedimb", "run", *words, "seed=1"], check=True, capture_output=True, text=True
    )
    holder.close()
    lines = [line for line in run.stderr.splitlines() if "fedimb track sync" in line]
    assert 1 <= len(lines) <= 3  # the start and the end, as far as the command waited for them, and that it did not
    said = ("the database is locked: another program is writing to it", "still sending in the background")
    assert all(any(words in line for words in said) for line in lines)
    (folder,) = (tmp_path / "default").glob("*-s1-*")
    subprocess.run([sys.executable, "-m", "fedimb", "track", "sync", str(folder)], check=True, capture_output=True)
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    sent = client.search_runs([client.get_experiment_by_name("default").experiment_id])
    assert [run.info.status for run in sent] == ["FINISHED"] * 2
    assert "Traceback" not in run.stderr
    assert "SQL" not in run.stderr
