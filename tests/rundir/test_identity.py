"""What a run is made of, and how a difference is said."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from small_runs import config

from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.rundir import source_files
from fedimb.rundir.code import Code, DiskCode, code_of
from fedimb.rundir.distributions import GONE
from fedimb.rundir.identity import NONE_RECORDED, Identity, differences, inputs_of, of_json
from fedimb.rundir.source_files import EDITED

MADE = Identity(
    config="c",
    problem="p",
    data="d",
    partition="q",
    inputs={"strategy.scope.encoder.path": "1"},
    versions={"torch": "2.9", "device": "cpu"},
    files={"mine/client.py": "1", "fedimb/seeds.py": "2"},
    plugins={"mine": "1.0 a"},
    distributions={"numpy": "2.0 b", "torch": "2.9 c"},
    sites={"va": "0.1.0 a"},
)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config": "x"}, "the configuration changed"),
        ({"data": "x"}, "the data changed"),
        ({"partition": "x"}, "the partition changed"),
        ({"inputs": {"strategy.scope.encoder.path": "2"}}, "the content of strategy.scope.encoder.path changed"),
        ({"inputs": {"strategy.scope.encoder.path": GONE}}, "strategy.scope.encoder.path is missing"),
        ({"versions": {"torch": "3", "device": "cpu"}, "distributions": {"torch": "3 x"}}, "torch 2.9 -> 3"),
        ({"versions": {"torch": "2.9", "device": "NVIDIA H200"}}, "device cpu -> NVIDIA H200"),
        ({"files": {"mine/client.py": "2", "fedimb/seeds.py": "2"}}, "mine/client.py changed"),
        ({"files": {"mine/client.py": "1", "fedimb/seeds.py": GONE}}, "fedimb/seeds.py is missing"),
        ({"plugins": {"mine": "1.1 b"}}, "mine 1.0 -> 1.1"),
        ({"distributions": {"numpy": "2.0 x"}}, "the installed files of numpy 2.0 changed"),
        ({"sites": {"va": "0.2.0 b"}}, "the code of site va changed (0.1.0 a -> 0.2.0 b)"),
    ],
)
def test_every_ingredient_is_named(change, sentence):
    now = replace(MADE, **change)
    assert differences(MADE, now) == [sentence]
    assert now.sha != MADE.sha or set(change) == {"distributions"}


def test_what_is_not_known_is_not_compared_and_a_mixture_is_never_equal():
    assert differences(MADE, replace(MADE, partition="", sites={}, distributions={"new": "1"})) == []
    assert differences(None, MADE) == [NONE_RECORDED]
    mixed = replace(MADE, files={"mine/client.py": EDITED})
    assert differences(mixed, mixed) == [f"mine/client.py was {EDITED}"]


def test_it_survives_json_and_anything_else_is_no_identity():
    stored = json.loads(json.dumps(MADE.to_json()))
    assert of_json(stored) == MADE
    assert of_json({**stored, "format": 2}) is of_json({**stored, "files": []}) is of_json([]) is of_json(None) is None


def store(folder, **change):
    arrays = {"x": np.zeros((3, 2), np.float32), "y": np.array([0, 1, 1]), "class_names": ("a", "b")}
    arrays |= {"patients": np.array([1, 2, 3]), "sites": np.array([0, 0, 1]), "site_names": ("p", "q")}
    return Store.build(SourceData(**(arrays | change)), folder, f"fingerprint of {folder.name}")


def test_data_are_their_content_wherever_they_are(tmp_path):
    first, again = store(tmp_path / "first"), store(tmp_path / "again")
    assert first.content_sha == again.content_sha == Store.open(first.path).content_sha
    (first.path / "content.sha256").write_text("cut")  # not trusted
    assert Store.open(first.path).content_sha == again.content_sha
    changes = {
        "x": np.full((3, 2), 1e-9, np.float32),
        "y": np.array([1, 1, 1]),
        "class_names": ("a", "c"),
        "patients": np.array([1, 2, 2]),
        "sites": np.array([0, 1, 1]),
        "site_names": ("p", "r"),
        "scale": 0.5,
        "official_test": np.array([True, False, False]),
    }
    found = {store(tmp_path / name, **{name: value}).content_sha for name, value in changes.items()}
    assert len(found | {first.content_sha}) == len(changes) + 1


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package ``afar`` that this process has imported."""
    (tmp_path / "afar.py").write_text("ONE = 1\n")
    info = tmp_path / "afar-1.5.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("afar.py,sha256=x,8\nafar-1.5.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("afar")
    yield tmp_path
    sys.modules.pop("afar")


def test_an_installed_package_is_its_record_and_the_files_edited_since(installed, monkeypatch):
    found = code_of({"ce"})
    assert found.distributions["afar"].startswith("1.5 ")
    assert "afar.py" not in found.files
    assert DiskCode().now(found) == found
    late = (installed / "afar-1.5.dist-info" / "RECORD").stat().st_mtime + 60

    os.utime(installed / "afar.py", (late, late))
    assert DiskCode().now(found).distributions["afar"] != found.distributions["afar"]
    (installed / "afar-1.5.dist-info" / "RECORD").unlink()
    assert DiskCode().now(found).distributions["afar"] == GONE


def test_code_that_is_older_in_memory_than_on_disk_is_not_taken_for_either(tmp_path, monkeypatch):
    (tmp_path / "loose_one.py").write_text("ONE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source_files, "_seen", {})
    __import__("loose_one")
    try:
        first = code_of(set()).files["loose_one.py"]
        (tmp_path / "loose_one.py").write_text("ONE = 2\n")
        assert code_of(set()).files["loose_one.py"] == first  # what this process runs
        assert DiskCode().now(Code({"loose_one.py": first})).files["loose_one.py"] != first
        monkeypatch.setattr(source_files, "_seen", {})
        monkeypatch.setattr(
            source_files, "_BEFORE", frozenset({"loose_one"})
        )  # as if imported before the identity began
        assert code_of(set()).files["loose_one.py"] == EDITED
    finally:
        sys.modules.pop("loose_one")


def test_of_fedimbs_parts_only_those_named_and_those_they_import():
    plain, scope = (set(code_of({"plain", "ce", word}).files) for word in ("shuffle", "scope"))
    assert {"fedimb/strategies/scope.py", "fedimb/clients/scope.py"} <= scope - plain
    assert {"fedimb/clients/plain.py", "fedimb/training/losses/ce.py", "fedimb/clientapp/runtime.py"} <= plain
    assert not any(name.startswith(("fedimb/cli/", "fedimb/report/", "fedimb/deploy/")) for name in plain)
    assert any(name.startswith("fedimb/deploy") for name in code_of({"plain"}, deployed=True).files)


def test_a_file_named_by_a_bare_word_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDIMB_DATA_DIR", raising=False)
    (tmp_path / "trained").write_bytes(b"1")
    (tmp_path / "mean").write_bytes(b"a rule's name, not a file")
    made = config("strategy=scope", "strategy.scope.encoder={name: clip, path: trained}")
    first = inputs_of(made)
    (tmp_path / "trained").write_bytes(b"2")
    assert list(first) == ["strategy.scope.encoder.path"]
    assert inputs_of(made) != first
