"""The same reply is refused with the same words inline and on Ray, and the result is the same to the bit."""

import numpy as np
import pytest
from small_runs import launch_in, weights_sha

from fedimb.contracts import platform as names
from fedimb.engine.admission import Admission
from fedimb.engine.ray import RayEngine

WORDS = ("rounds=2", "clients.count=4", "clients.min_reply_fraction=0.25")


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch):
    """Clients 1 and 3 are taken to hold one row each, so that their honest weights are too large."""
    build = Admission.__init__

    def init(self, contracts, settings, sizes, rows, *more, **other):
        build(self, contracts, settings, sizes, {c: (1, 0) if c in (1, 3) else own for c, own in rows.items()}, *more)

    monkeypatch.setattr(Admission, "__init__", init)


def told(result):
    return [(one["where"], one["client"], one["record"], one["field"], one["reason"]) for one in result.left_out]


def test_a_refused_reply_is_left_out_inline(tmp_path, strict):
    result = launch_in(tmp_path, *WORDS, "engine=inline")
    found = told(result)
    assert [one[:4] for one in found] == [(f"round {n}", c, "metrics", names.WEIGHT) for n in (1, 2) for c in (1, 3)]
    assert all(one[4].endswith("allowed are 0 to 1") for one in found)


@pytest.mark.slow
def test_every_engine_refuses_the_same_reply(tmp_path, strict):
    inline = launch_in(tmp_path / "inline", *WORDS, "engine=inline")
    with RayEngine(2) as engine:
        ray = launch_in(tmp_path / "ray", *WORDS, "engine=ray", "engine.workers=2", engine=engine)
    assert told(ray) == told(inline)
    assert len(told(ray)) == 4
    assert weights_sha(ray) == weights_sha(inline)


@pytest.mark.slow
def test_every_engine_refuses_a_matrix_of_other_rows_than_before(tmp_path, monkeypatch):
    """Client 1 is taken to have said in an earlier round that it has no row of any class."""
    build = Admission.__init__

    def init(self, *args, **more):
        build(self, *args, **more)
        self.told.validation.setdefault(1, np.zeros(self.sizes.axes["C"], np.int64))

    monkeypatch.setattr(Admission, "__init__", init)
    words = (*WORDS, "data.validation=0.3", "data.test={name: none}")
    inline = launch_in(tmp_path / "inline", *words, "engine=inline")
    with RayEngine(2) as engine:
        ray = launch_in(tmp_path / "ray", *words, "engine=ray", "engine.workers=2", engine=engine)
    in_rounds = [one[:4] for one in told(inline) if one[0].startswith("round")]
    assert in_rounds == [(f"round {n}", 1, "x.confusion", "matrix") for n in (1, 2)]
    assert told(ray) == told(inline)
    assert weights_sha(ray) == weights_sha(inline)
