"""Fixtures of the source tests."""

import pytest

from fedimb import registry


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A case to its source, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDIMB_DATA_DIR", raising=False)

    def make(case, on_bad):
        args = case(tmp_path)
        name = args.pop("name")
        return registry.build("source", name, given={"on_bad": on_bad}, **args)

    return make
