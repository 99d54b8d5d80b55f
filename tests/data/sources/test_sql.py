"""SQL queries: an OMOP-like cohort, exact values, and no password in anything that is kept."""

import datetime
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedimb import registry
from fedimb.cli import main
from fedimb.data.check import load_source
from fedimb.data.inputs import Inputs
from fedimb.data.new_rows import Expected
from fedimb.data.prepare import prepare
from fedimb.data.problems import Problems
from fedimb.data.sources.sql import Sql
from fedimb.errors import ConfigError, DataError
from fedimb.testing import check_source

pytest.importorskip("sqlalchemy")
ROOT = Path(__file__).parents[3]
SITES, PER_SITE, ILL = (11, 12, 13), 200, {11: 24, 12: 9, 13: 3}


def cohort(folder):
    """600 persons at three sites, 36 of them (6 %) with the outcome."""
    with sqlite3.connect(folder / "cohort.db") as database:
        database.executescript(
            "CREATE TABLE person (person_id INTEGER, year_of_birth INTEGER, gender_concept_id INTEGER,"
            " care_site_id INTEGER);"
            "CREATE TABLE visit_occurrence (visit_id INTEGER, person_id INTEGER);"
            "CREATE TABLE measurement (person_id INTEGER, measurement_concept_id INTEGER, value_as_number REAL);"
            "CREATE TABLE condition_occurrence (person_id INTEGER, condition_concept_id INTEGER);"
        )
        rng = np.random.default_rng(0)
        for s, site in enumerate(SITES):
            for i in range(PER_SITE):
                person = 2**60 + 1000 * s + i  # beyond float64
                born, gender = int(rng.integers(1930, 2000)), (8507, 8532)[i % 2]
                database.execute("INSERT INTO person VALUES (?, ?, ?, ?)", (person, born, gender, site))
                database.execute("INSERT INTO visit_occurrence VALUES (?, ?)", (i, person))
                if i % 5:  # some were never measured: NULL
                    systolic = round(rng.normal(130, 15))
                    database.execute("INSERT INTO measurement VALUES (?, 3004249, ?)", (person, systolic))
                if i < ILL[site]:
                    database.execute("INSERT INTO condition_occurrence VALUES (?, 321042)", (person,))
    database.close()
    return f"sqlite:///{folder / 'cohort.db'}"


def group(url):
    data = yaml.safe_load((ROOT / "fedimb/configs/data/sql.yaml").read_text())
    data["source"]["url"] = url
    return data


def test_an_omop_like_cohort_over_three_sites(tmp_path):
    data = group(cohort(tmp_path))
    found = load_source(data["source"] | {"on_bad": data["on_bad"]})
    assert found.class_names == ("none", "outcome")
    assert np.bincount(found.y).tolist() == [564, 36]  # 6 %
    assert found.site_names == ("11", "12", "13")
    assert [int(found.y[found.sites == s].sum()) for s in range(3)] == [24, 9, 3]
    assert len(set(found.patients.tolist())) == 600
    assert found.columns.names == ("age", "gender", "visits", "systolic")
    assert np.isnan(found.x).sum() == 120
    federation = prepare(data, {"name": "by_column"}, clients=3, seed=0)
    assert len(federation.train) == 3
    assert federation.class_names == ("none", "outcome")


@pytest.fixture
def database(tmp_path):
    def make(columns, rows):
        path = tmp_path / "t.db"
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as opened:
            opened.execute(f"CREATE TABLE t ({columns})")
            opened.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)
        opened.close()
        return f"sqlite:///{path}"

    return make


ROWS = [(1, 0.5, "x"), (2, None, "y"), (3, 2.5, "x"), (4, 1.5, "y")]


def test_the_contract(database):
    check_source("sql", url=database("a INTEGER, b REAL, y TEXT", ROWS * 4), query="SELECT * FROM t", target="y")


def test_the_order_of_the_rows_and_the_text_of_the_query_are_told_apart(database):
    url = database("a INTEGER, b REAL, y TEXT", ROWS)
    make = lambda order: Sql(f"SELECT a, b, y FROM t ORDER BY {order}", url=url, target="y")  # noqa: E731
    up, down = make("a"), make("a DESC")
    assert np.array_equal(up.load().x, down.load().x, equal_nan=True)
    assert up.fingerprint() != down.fingerprint()  # another text
    before = make("a").fingerprint()
    assert before == up.fingerprint()
    database("a INTEGER, b REAL, y TEXT", [*ROWS[:3], (4, 1.25, "y")])
    assert make("a").fingerprint() != before  # another result


def test_whole_numbers_beside_null_stay_exact(database):
    codes = [(1, 999000011000000103, 0), (2, None, 1), (3, 999000011000000128, 0), (4, 999000011000000128, 1)]
    url = database("a INTEGER, code INTEGER, y INTEGER", codes)
    data = Sql("SELECT * FROM t", url=url, target="y", site_column="code", on_bad="skip").load()
    assert data.site_names == ("999000011000000103", "999000011000000128")
    assert len(data.skipped) == 1
    with pytest.raises(DataError, match="column 'f' names something and row 1 holds the float 999000011000000"):
        Sql("SELECT a, y, code * 1.0 AS f FROM t WHERE a <> 2", url=url, target="y", patient="f").load()


def test_duckdb_and_its_types(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("duckdb_engine")
    with duckdb.connect(str(tmp_path / "t.duckdb")) as opened:
        opened.execute("CREATE TABLE t (a DECIMAL(10, 2), ok BOOLEAN, seen DATE, big HUGEINT, y VARCHAR)")
        for row in ((1.5, True, "x"), (2.25, False, "y"), (None, True, "x")):
            seen = datetime.date(2020, 1, 1)
            opened.execute(
                "INSERT INTO t VALUES (?, ?, ?, 170141183460469231731687303715884105727, ?)", [*row[:2], seen, row[2]]
            )
    args = {"url": f"duckdb:///{tmp_path / 't.duckdb'}", "target": "y"}
    data = Sql("SELECT a, ok, big, y FROM t", patient="big", **args).load()
    assert {(1.5, 1.0), (2.25, 0.0)} < set(map(tuple, data.x[:, :2].tolist()))
    assert len(set(data.patients.tolist())) == 1
    with pytest.raises(DataError, match="column 'seen' holds dates or times, which no model reads: drop it"):
        Sql("SELECT * FROM t", **args).load()
    with pytest.raises(DataError, match=r"the query failed: .*nothing"):
        Sql("SELECT * FROM nothing", **args).load()
    check_source("sql", query="SELECT a, ok, y FROM t, range(5)", **args)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host/db",
        "postgresql+psycopg://me:s3c/r@et@host:5432/db",
        "mysql://me:s3cret@host/db?charset=utf8",
        "postgresql://me@host/db?password=s3cret",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Ds3cret",
        "duckdb:///md:db?motherduck_token=s3cret",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = {"query": "SELECT 1", "target": "y"}
    for refuse in (
        lambda: registry.check_args("source", "sql", {"url": url, **args}, ("on_bad",)),
        lambda: Sql(url=url, **args),
    ):
        with pytest.raises(ConfigError, match="give its name as url_env=NAME") as refused:
            refuse()
        assert "s3c" not in str(refused.value)
    assert main(["run", "data=sql", f"data.source.url='{url}'"]) == 2
    assert "s3c" not in "".join(capsys.readouterr())
    assert not list(tmp_path.rglob("*"))  # nothing was written


def test_an_error_of_the_database_does_not_repeat_a_password(tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("duckdb_engine")
    duckdb.connect(str(tmp_path / "t.duckdb")).close()
    monkeypatch.setenv("PLACE", f"duckdb:///{tmp_path / 't.duckdb'}?threads=s3cret")
    with pytest.raises(DataError, match="the query failed") as refused:
        Sql("SELECT 1 AS y", url_env="PLACE", target="y").load()
    assert "s3cret" not in f"{refused.value} {refused.value.__cause__}"
    assert refused.value.__suppress_context__


@pytest.mark.slow
def test_a_url_from_the_environment_is_kept_nowhere(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COHORT", cohort(tmp_path) + "?password=s3cret")
    settings = ["data=sql", "data.source.url=null", "data.source.url_env=COHORT", "partition=by_column"]
    run = ["clients.count=3", "model=logistic", "engine=inline", "rounds=1", "output_dir=out"]
    assert main(["run", *settings, *run]) == 0
    said = "".join(capsys.readouterr()) + caplog.text
    kept = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert b"COHORT" in kept
    assert "s3cret" not in said
    assert b"s3cret" not in kept
    assert not [f for f in (tmp_path / "cache").rglob("*") if f.is_file() and b"s3cret" in f.read_bytes()]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "give url=..., or url_env=NAME"),
        ({"url": "sqlite:///a.db", "url_env": "B"}, "give url=..., or url_env=NAME"),
        ({"url_env": "NOT_SET_ANYWHERE"}, "the environment variable NOT_SET_ANYWHERE is not set"),
        ({"url_env": "not a name"}, "not the name of an environment variable"),
        ({"url": "no url"}, "the URL cannot be read"),
        ({"url": "sqlite:///gone.db"}, "no 'gone.db' in the current folder"),
        ({"url": "nodb://host/x"}, "no driver for 'nodb'"),
        ({"url": "oracle://host/x"}, "the driver '[a-z_]*' is not installed: pip install"),
        ({"url": "sqlite:///t.db", "query": "DELETE FROM t"}, "query does not begin with SELECT"),
        ({"url": "sqlite:///t.db", "query": "SELECT * FROM u"}, "the query failed: no such table: u"),
        ({"url": "sqlite:///t.db", "query": "SELECT * FROM t WHERE a > 9"}, "returns no rows; check its conditions"),
        ({"url": "sqlite:///t.db", "query": "SELECT a, a, y FROM t"}, "column 'a' occurs twice; rename one with AS"),
        ({"url": "sqlite:///t.db", "query": "WITH q AS (SELECT 1) DELETE FROM t"}, "the query failed: .*readonly"),
        ({"url": "sqlite:///t.db", "target": "z"}, "target names 'z', which is not a column of the query"),
    ],
)
def test_wrong_settings_and_queries(database, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    database("a INTEGER, b REAL, y TEXT", ROWS)
    with pytest.raises((ConfigError, DataError), match=says) as refused:
        Sql(**{"query": "SELECT * FROM t", "target": "y"} | args).load()
    assert "\n" not in str(refused.value)
    with sqlite3.connect(tmp_path / "t.db") as opened:
        assert opened.execute("SELECT count(*) FROM t").fetchone() == (4,)


def test_without_sqlalchemy_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"source 'sql' needs SQLAlchemy: pip install 'fedimb\[sql\]'"):
        Sql("SELECT 1", url="sqlite:///a.db", target="y").load()


def test_rows_to_predict_keep_the_order_of_the_query(database):
    url = database("a INTEGER, b REAL, y TEXT", ROWS)
    trained = Sql("SELECT a, b, y FROM t", url=url, target="y").load()
    expected = Expected(Inputs((3,), "float32", columns=trained.columns), trained.class_names, "multiclass", "id")
    query = "SELECT a AS id, b, a FROM t ORDER BY a DESC"  # columns in another order, no label
    (batch,) = Sql(query, url=url, target="y").new_rows(expected, Problems())
    assert batch.ids == ("4", "3", "2", "1")
    assert batch.x[:, 0].tolist() == [4, 3, 2, 1]
    assert batch.labels is None


def test_messages_name_the_source(database):
    with pytest.raises(ConfigError, match="source 'sql': target_map and thresholds are two rules"):
        Sql("SELECT 1", url="sqlite:///t.db", target="y", target_map={"1": "a"}, thresholds=[1])
