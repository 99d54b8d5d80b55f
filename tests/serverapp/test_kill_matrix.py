"""Runs killed at random moments end as runs that were left alone: a sample of ``make kill-matrix``, and its table."""

import random
from pathlib import Path

import pytest
from kill_matrix import POINTS, points, read_table, run


def test_no_run_in_the_table_lost_anything_and_its_points_are_those_drawn() -> None:
    table = read_table()
    assert table
    assert [point for point in table if not point.fine] == []
    drawn = {(point.engine, point.number): point for engine in POINTS for point in points(engine)}
    for point in table:
        expected = drawn[point.engine, point.number]
        assert (point.method, point.kills) == (expected.method, expected.kills)
        assert point.share <= expected.share


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "number"), [("inline", 6), ("ray", 2)])
def test_a_sample(engine: str, number: int, cache_dir, tmp_path: Path) -> None:
    sample = random.Random("sample").sample(points(engine), number)
    for point in run(engine, sample, tmp_path):
        assert point.fine, point
