import os

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.atomic import write_atomic
from fedimb.clientapp.state import StateLost, StateStore
from fedimb.records import array_record


def state(value):
    return RecordDict({"x.mine": array_record({"a": np.array(value)}), "x.note": ConfigRecord({"v": value})})


def value_of(content):
    return int(content["x.note"]["v"])


@pytest.fixture
def store(tmp_path):
    return StateStore(tmp_path / "federation" / "run")


def test_every_client_starts_with_an_empty_state_and_reading_writes_nothing(store):
    assert len(store.load(3, 0)) == 0
    assert not store.root.exists()


def test_each_version_is_read_back_for_its_own_client(store):
    store.save(3, 5, state(35), keep=(0,))
    store.save(4, 5, state(45), keep=(0,))
    assert value_of(store.load(3, 5)) == 35
    assert value_of(store.load(4, 5)) == 45
    assert store.load(4, 5)["x.mine"]["a"].numpy().shape == ()


def test_what_the_checkpoint_names_is_kept_and_the_rest_dropped(store):
    for version, keep in ((1, (0, 0)), (2, (0, 1)), (3, (1, 2)), (4, (1, 3))):
        store.save(0, version, state(version), keep)
    assert value_of(store.load(0, 1)) == 1  # the last checkpoint's
    assert value_of(store.load(0, 3)) == 3  # what this message was built on
    assert value_of(store.load(0, 4)) == 4
    with pytest.raises(StateLost, match="client 0 has no state of version 2"):
        store.load(0, 2)


def test_a_resumed_run_overwrites_the_versions_of_the_lost_rounds(store):
    store.save(0, 1, state(1), keep=(0,))
    store.save(0, 2, state(2), keep=(1, 1))
    store.save(0, 2, state(22), keep=(1, 1))  # the same message again, after a resume
    assert value_of(store.load(0, 1)) == 1
    assert value_of(store.load(0, 2)) == 22


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_any_pattern_of_checkpoints_can_be_resumed(tmp_path_factory, checkpoints):
    store = StateStore(tmp_path_factory.mktemp("state"))
    before = committed = current = 0  # versions at the last two checkpoints, and of the work since
    for version, checkpoint in enumerate(checkpoints, start=1):
        assert current == 0 or value_of(store.load(0, current)) == current
        store.save(0, version, state(version), keep=(committed, current))
        current = version
        for one in (before, committed):
            assert one == 0 or value_of(store.load(0, one)) == one
        if checkpoint:
            before, committed = committed, current
    assert len(list(store.root.rglob("*.safetensors"))) <= 4


def test_a_file_left_by_a_crash_while_writing_is_never_read(store):
    store.save(0, 1, state(1), keep=(0,))
    folder = next(store.root.glob("client-*"))
    (folder / ".v000000002.safetensors.123.tmp").write_bytes(b"half of it")
    with pytest.raises(StateLost):
        store.load(0, 2)
    store.save(0, 2, state(2), keep=(1,))
    assert value_of(store.load(0, 2)) == 2
    assert value_of(store.load(0, 1)) == 1


def test_killed_between_writing_and_dropping_all_versions_are_there(store, monkeypatch):
    for version in (1, 2, 3):
        store.save(0, version, state(version), keep=(version - 1,))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            store.save(0, 4, state(4), keep=(3,))
    assert [value_of(store.load(0, v)) for v in (1, 2, 3, 4)] == [1, 2, 3, 4]
    store.save(0, 4, state(4), keep=(3,))
    with pytest.raises(StateLost):
        store.load(0, 1)


@pytest.mark.parametrize("size", [0, 1, 40])
def test_a_damaged_version_counts_as_lost(store, size):
    store.save(7, 1, state(1), keep=(0,))
    path = next(store.root.rglob("v*.safetensors"))
    write_atomic(path, path.read_bytes()[:size])
    with pytest.raises(StateLost, match=r"client 7.*damaged"):
        store.load(7, 1)


def test_a_changed_byte_counts_as_lost_wherever_it_is(store):
    store.save(7, 1, state(1), keep=(0,))
    path = next(store.root.rglob("v*.safetensors"))
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            assert value_of(store.load(7, 1)) == 1  # only the name of the hash's own field may change unseen
            assert b'"sha256":"' not in path.read_bytes()
        except StateLost:
            pass
    path.write_bytes(whole)
    assert value_of(store.load(7, 1)) == 1


def test_a_state_of_another_client_or_version_and_a_link_are_refused(store):
    store.save(7, 1, state(1), keep=(0,))
    store.save(8, 1, state(1), keep=(0,))
    one, two = (next(store.root.glob(f"client-00000{c}/*")) for c in (7, 8))
    one.write_bytes(two.read_bytes())
    with pytest.raises(StateLost, match="is the state of client 8, version 1"):
        store.load(7, 1)
    one.unlink()
    one.symlink_to(two)
    with pytest.raises(StateLost, match="links in a run folder are not followed"):
        store.load(7, 1)


def test_two_runs_do_not_share_states(tmp_path):
    one, two = StateStore(tmp_path / "f" / "one"), StateStore(tmp_path / "f" / "two")
    one.save(0, 1, state(1), keep=(0,))
    with pytest.raises(StateLost):
        two.load(0, 1)
    assert os.listdir(tmp_path / "f") == ["one"]
