"""The commitment: proofs that hold, proofs that were changed, salts that differ, and the site's secret."""

import json

import numpy as np
import pytest

from fedimb.deploy.registered_data import commitment
from fedimb.deploy.registered_data.commitment import Commitment, verify_proof
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.errors import ConfigError, DataError

ROWS = ["p1,50,a,ill", "p1,51,b,ill", "p2,60,a,well", "Müller,61,b,well", "p4,61,b,well"]


@pytest.fixture
def version(home, tmp_path):
    (tmp_path / "Köpfe.csv").write_text("\n".join(["who,age,kind,label", *ROWS]) + "\n", encoding="utf-8")
    words = ["target=label", "categorical=[kind]"]
    return register_data(home, str(tmp_path / "Köpfe.csv"), "heads", ["ct"], patient_column="who", settings=words)


def test_a_lost_or_open_secret(home, version):
    secret = home.file("data", "secret")
    secret.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        version.verify(full=True)
    secret.chmod(0o600)
    secret.write_text("abc")
    with pytest.raises(DataError, match="secret is damaged"):
        version.verify(full=True)


def test_proofs(home, version):
    root = version.facts["merkle_root"]
    closed, opened = (json.loads(json.dumps(version.prove("5", reveal=one))) for one in (False, True))
    assert "opened" not in closed
    assert verify_proof(closed, root) is None
    shown = verify_proof(opened, root)
    assert (shown["patient"], shown["label"], shown["site"]) == ("Müller", ["well"], "st-anna")
    assert version.prove("Köpfe.csv row 5") == closed
    with pytest.raises(DataError, match="for another version"):
        verify_proof(closed, "00" * 32)
    for change in ({"index": 2}, {"size": 4}, {"leaf": "00" * 32}, {"path": closed["path"][1:]}):
        with pytest.raises(DataError, match="the proof was changed"):
            verify_proof({**closed, **change}, root)
    lie = {**opened["opened"], "label": "WyJpbGwiXQ=="}
    with pytest.raises(DataError, match="not the one that was hashed"):
        verify_proof({**opened, "opened": lie}, root)
    for bad in ({}, {**closed, "schema": "x"}, {**closed, "path": "zz"}, {**closed, "leaf": 3}):
        with pytest.raises(DataError):
            verify_proof(bad)
    with pytest.raises(ConfigError, match="no record '77'"):
        version.prove("77")


def test_equal_records_have_different_leaves_and_versions_different_salts(home, version):
    reading = version.read_verified()
    salted = Commitment.over(commitment.site_secret(home), "heads", [mark for _, mark in version.records])
    leaves = salted.leaves(reading)
    assert len({*leaves}) == len(leaves)
    other = Commitment.over(commitment.site_secret(home), "heads", ["x"])
    assert salted.salt(0) != other.salt(0)
    assert salted.salt(0) != salted.salt(1)


def test_embeddings_know_their_patients_and_rows_left_out(home, tmp_path):
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    x[1, 0] = np.nan
    np.savez(tmp_path / "e.npz", x=x, y=np.array([0, 1, 1, 0]), patients=np.array([7, 8, 9, 9]))
    version = register_data(home, str(tmp_path / "e.npz"), "e", ["e"], settings=["on_bad=skip"])
    assert [place.rpartition("/")[2] for place, _ in version.records] == ["e.npz x[0]", "e.npz x[2]", "e.npz x[3]"]
    assert verify_proof(version.prove("2", True))["patient"] == "9"
