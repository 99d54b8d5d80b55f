"""A patient is withdrawn in every spelling of the id, and nobody else is."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedimb.data.sources.npz import Npz
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.deploy.registered_data.commitment import patient_mark
from fedimb.deploy.registered_data.record_lists import RecordPlace, list_records, person_of
from fedimb.deploy.registered_data.withdrawn import withdrawn_mask

SECRET = b"0" * 32


def left_out(rows, withdrawn):
    entries = [{"patient": patient_mark(SECRET, one)} for one in withdrawn]
    reading = SimpleNamespace(rows=rows)
    return withdrawn_mask(reading, [""] * len(rows), entries, SECRET).tolist()


@pytest.mark.parametrize("mark", ["100", "100.0"])  # 0.1 marked what was typed
def test_every_spelling_of_a_patient_is_left_out(mark):
    rows = [RecordPlace("a", who) for who in ("100", "100.0", "0100", "1e2", None)]
    assert left_out(rows, [mark]) == [True, True, False, False, False]


def test_people_of_two_files_stay_apart(tmp_path):
    for site, who in (("n", "7.0"), ("s", "7")):
        (tmp_path / f"{site}.csv").write_text(f"a,label,pid\n1,0,{who}\n2,1,{who}\n")
    source = TabularCsv({s: str(tmp_path / f"{s}.csv") for s in "ns"}, target="label", patient="pid")
    rows, _ = list_records("tabular_csv", source)
    assert [row.patient for row in rows] == ["n/7.0", "n/7.0", "s/7", "s/7"]
    assert left_out(rows, [person_of("n/7", "n")]) == [True, True, False, False]


def test_patients_of_an_npz_are_listed_as_spelled(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((3, 2), np.float32), y=[0, 1, 1], pid=np.array([b"7", b"7.0", b"8"]))
    source = Npz(str(tmp_path / "d.npz"), arrays={"patients": "pid"})
    rows, _ = list_records("npz", source)
    assert [row.patient for row in rows] == ["7", "7.0", "8"]
    assert left_out(rows, ["7"]) == [True, True, False]
    assert source.load().patients.tolist() == [0, 0, 1]
