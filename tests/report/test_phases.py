"""The table and the picture of recall by phase."""

import json
import math
from types import SimpleNamespace

import pytest

from fedimb.report.phases import phase_lines, phases_picture
from fedimb.serverapp.panels import phases_panel


def result(phases):
    table = [[round(0.9 - 0.05 * k, 2) if j <= k else 0.0 for j in range(phases)] for k in range(phases)]
    lost = [0.05 * (phases - 1 - max(j, 0)) for j in range(phases - 1)]
    row = {"recall": table, "forgetting": lost, "mean_forgetting": sum(lost) / len(lost)}
    names = tuple(f"class {c}" for c in range(phases))
    return SimpleNamespace(phases={"classes": [[c] for c in range(phases)], "rows": {"fedavg": row}}, class_names=names)


def test_a_line_for_each_phase_and_what_was_forgotten():
    text = "\n".join(phase_lines(result(3)))
    assert "after phase 3" in text
    assert "+0.100" in text  # of phase 1
    assert "mean forgetting +0.075" in text
    assert "phase 2: class 1" in text


def test_of_many_phases_the_first_and_the_last_are_shown():
    lines = phase_lines(result(12))
    assert sum("after phase" in line for line in lines) == 8
    assert any("4 phases between are not shown" in line for line in lines)


def test_a_run_without_phases_has_no_lines():
    assert phase_lines(SimpleNamespace(phases={}, rows=())) == []


def test_the_picture_is_drawn_from_the_panel_and_is_the_same_again():
    panel = json.loads(phases_panel([["a"], ["b", "c"]], {"fedavg": [[0.9, math.nan], [0.5, 0.8]]}))
    assert panel["recall"][0] == [0.9, None]
    picture = phases_picture(panel)
    assert picture.startswith(b"<?xml")
    assert picture == phases_picture(panel)


@pytest.mark.parametrize("panel", [{}, {"phases": [["a"]], "recall": []}, {"phases": [["a"]], "recall": [[0.1, 0.2]]}])
def test_other_panels_are_left_to_others(panel):
    assert phases_picture(panel) is None
