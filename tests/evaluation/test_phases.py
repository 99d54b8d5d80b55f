"""Recall by phase and forgetting, by hand."""

import numpy as np
import pytest

from fedimb.evaluation.phases import forgetting, phase_recalls, recall_after


def test_the_recall_of_a_phase_is_the_mean_over_its_classes_with_test_rows():
    matrix = [[8, 2, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0], [5, 0, 0, 5]]
    assert phase_recalls(matrix, [[0], [1, 2], [3]]) == {
        "test/phase_recall/1": 0.8,
        "test/phase_recall/2": 0.25,  # class 2 has no test row
        "test/phase_recall/3": 0.5,
    }
    assert np.isnan(phase_recalls(matrix, [[2], [0, 1, 3]])["test/phase_recall/1"])


def line(phase=None, *recalls):
    return ({} if phase is None else {"data/phase": float(phase)}) | {
        f"test/phase_recall/{j}": recall for j, recall in enumerate(recalls, 1)
    }


def test_the_last_score_of_a_phase_counts_and_a_line_that_names_none_is_of_the_one_before():
    lines = [line(1, 0.9, 0.0), line(1), line(1, 0.7, 0.1), line(2, 0.2, 0.5), line(None, 0.3, None)]
    found = recall_after(lines, "data/phase", 2)
    np.testing.assert_array_equal(found, [[0.7, 0.1], [0.3, np.nan]])


@pytest.mark.parametrize("lines", [[line(1, 0.5, 0.5)], [line(None, 0.5, 0.5)], [line(1, 0.5, 0.5), line(2)], []])
def test_without_a_score_of_every_phase_there_is_no_table(lines):
    assert recall_after(lines, "data/phase", 2) is None


def test_forgetting_is_the_highest_before_the_last_phase_minus_the_last():
    table = [[0.9, 0.2, 0.0, 0.0], [0.4, 0.8, 0.0, 0.0], [0.6, 0.5, 0.7, 0.0], [0.5, 0.85, 0.1, 0.9]]
    np.testing.assert_allclose(forgetting(table), [0.4, -0.05, 0.6])


def test_an_undefined_recall_makes_forgetting_undefined():
    assert np.isnan(forgetting([[np.nan, 0.0], [0.5, 1.0]])).all()
