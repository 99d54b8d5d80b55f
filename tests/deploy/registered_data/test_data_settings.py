"""How a hospital's files are to be read: the four hospitals of the heart data, and labels that cannot say a class."""

import os
from pathlib import Path

import numpy as np
import pytest

from fedimb.data.paths import VARIABLE
from fedimb.deploy.registered_data.data_version import DataVersion
from fedimb.deploy.registered_data.datasets import data_sets, register_data
from fedimb.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[3] / "configs" / "data"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "heads.csv"
    path.write_text("who,age,label\n1,60,well\n2,61,well\n")
    return path


def add(home, path, **args):
    return register_data(home, str(path), "heads", ["ct"], settings=["target=label", "drop=[who]"], **args)


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason="needs FEDIMB_DATA_DIR")
@pytest.mark.parametrize(
    ("hospital", "rows", "disease"),
    [("cleveland", 303, 139), ("hungarian", 294, 106), ("switzerland", 123, 115), ("va", 200, 149)],
)
def test_the_four_hospitals(home, hospital, rows, disease):
    path = f"heart-disease/processed.{hospital}.data"
    version = register_data(home, path, "heart", ["heart"], like=str(CONFIGS / "heart_four.yaml"))
    assert version.facts["rows"] == rows
    assert version.facts["class_counts"] == {"healthy": rows - disease, "disease": disease}
    assert version.facts["schema"]["shape"] == [28]
    version.verify(full=True)


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason="needs FEDIMB_DATA_DIR")
def test_a_site_alone_reads_what_the_simulation_reads(home):
    """Else a deployed run could not equal the simulated one."""
    from fedimb.data.check import read_source

    _, simulated, _ = read_source(str(CONFIGS / "heart_four.yaml"))
    assert simulated.site_names[1] == "hungary"
    rows = simulated.sites == 1
    path = "heart-disease/processed.hungarian.data"
    store = register_data(home, path, "heart", ["heart"], like=str(CONFIGS / "heart_four.yaml")).open_store()
    assert np.array_equal(store.x, simulated.x[rows], equal_nan=True)
    assert np.array_equal(store.y, simulated.y[rows])
    assert np.array_equal(store.scaled, simulated.scaled)


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason="needs FEDIMB_DATA_DIR")
def test_labels_that_cannot_say_a_class_are_refused(home):
    hungary = "heart-disease/processed.hungarian.data"
    with pytest.raises(DataError, match="site 'st-anna' cannot express class 'severe': its labels are 0, 1"):
        register_data(home, hungary, "heart", ["severe"], like=str(CONFIGS / "heart_severe.yaml"))
    assert data_sets(home) == []


def test_a_class_without_rows_needs_a_word_of_the_site(home, table):
    with pytest.raises(DataError, match="has no rows of class 'ill': if the site records this class"):
        add(home, table, classes=["ill", "well"])
    with pytest.raises(ConfigError, match="Did you mean 'ill'"):
        add(home, table, classes=["ill", "well"], recordable=["il"])
    assert add(home, table, classes=["ill", "well"], recordable=["ill"]).facts["recordable"] == ["ill", "well"]


def test_settings_that_do_not_fit(home, table, tmp_path):
    with pytest.raises(ConfigError, match="does not take --patient-column"):
        register_data(home, str(tmp_path), "x", ["x"], patient_column="who")
    with pytest.raises(ConfigError, match="leave out --source"):
        add(home, table, like=str(CONFIGS / "heart_four.yaml"))
    with pytest.raises(ConfigError, match="does not read a file"):
        register_data(home, str(table), "x", ["x"], like=str(CONFIGS / "digits.yaml"))


def test_data_that_look_wrong_are_not_registered_until_the_site_accepts_them(home, tmp_path):
    ages = [*range(30, 50), 999, 999]
    rows = "".join(f"{age},{'ill' if i % 3 else 'well'}\n" for i, age in enumerate(ages))
    (tmp_path / "a.csv").write_text(f"age,label\n{rows}", encoding="utf-8")

    def add(*words):
        return register_data(home, str(tmp_path / "a.csv"), "ages", ["ct"], settings=["target=label", *words])

    with pytest.raises(DataError, match=r"^column 'age': 999 in 2 rows, .*data\.accept=\[sentinels\]\)$"):
        add()
    version = add("data.accept=[sentinels]")
    assert version.accept == ("sentinels",)
    version.refuse_findings()
    about = {key: value for key, value in version.about.items() if key != "accept"}  # as an earlier release registered
    with pytest.raises(DataError, match=r"fedimb node data add \.\.\. --name ages data\.accept=\[sentinels\]\)$"):
        DataVersion(home, version.folder, about).refuse_findings()
    with pytest.raises(ConfigError, match="Did you mean 'sentinels'"):
        add("data.accept=[sentinel]")


def test_a_query_is_refused_with_what_to_do(home, tmp_path):
    """Its result is no fixed list of records: it may be another one when the node verifies it."""
    (tmp_path / "cohort.db").write_bytes(b"SQLite format 3\0")
    source = "source: {name: sql, query: SELECT 1, url: 'sqlite:///cohort.db', target: a}"
    (tmp_path / "like.yaml").write_text(f"{source}\ntest: {{name: none}}\n")
    for more in ({"source": "sql"}, {}, {"like": str(tmp_path / "like.yaml")}):
        with pytest.raises(ConfigError, match="a query may give others whenever it is asked"):
            register_data(home, str(tmp_path / "cohort.db"), "cohort", ["c"], **more)
    assert not data_sets(home)
