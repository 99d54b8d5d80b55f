"""The pictures that a page opens with: what they say, which cost they show, what they put together."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from fedimb.report.html.classes import ranks_of
from fedimb.report.html.holders import holders_lines
from fedimb.report.html.legend import legend
from fedimb.report.html.numbers import rows_of
from fedimb.report.html.opening import opening

from .studies import plain, result, setting, study


def opened(made, bar=None):
    (place,) = made.settings.values()
    rows = rows_of(made, place.name)
    return opening("s1", place, rows, legend(rows), ranks_of(place, rows), bar)


def said(picture):
    return re.search(r'aria-label="([^"]*)"', picture)[1]


def test_what_the_pictures_say():
    found = opened(plain(), "la_post")
    assert said(found.recall).endswith("mean over the minority: fedavg 0.15, la_post 0.55")
    assert found.holding == ["fox: 2 of 3 clients have any; the largest holder has 50% of its 2 rows."]
    assert said(found.holders) == f"rows of the minority at each client: {found.holding[0]}"
    assert "fedavg 0.15 at 5, la_post (free) 0.55 at 5" in said(found.cost)  # 2 MB up and 3 down
    assert ([row.label for row in found.free], found.bar, found.cost_name) == (["la_post"], "la_post", "bytes")


def test_labels_are_the_cost_where_rows_used_different_numbers_of_them():
    rows = [result("fedavg", 0, (20, 15, 2), scores={"labels": 500})]
    found = opened(study([*rows, result("random", 0, (20, 15, 9), scores={"labels": 60})]))
    assert (found.cost_name, found.against) == ("labels", "the labels it used")
    assert "fedavg 0.10 at 500, random 0.45 at 60" in said(found.cost)


def test_costs_far_apart_have_numbers_and_no_formulas_at_their_axis():
    sums = result("lda", 0, (20, 15, 9), scores={"up_bytes": 0, "down_bytes": 1e4})
    found = opened(study([result("fedavg", 0, (20, 15, 2)), sums])).cost
    assert "mathdefault" not in found
    assert ">0.01<" in found


def test_nothing_is_drawn_of_what_is_not_known():
    found = opened(study([result("fedavg", 0, (20, 15, 2))], [replace(setting(), counts=None)]))
    assert (found.holders, found.holding, found.cost, found.cost_name, found.bar) == ("", [], "", "", None)


def test_a_class_that_no_client_has_is_named():
    empty = setting(counts=((30, 6, 0), (10, 4, 1)), minority=(1, 2))
    counts = np.asarray(empty.counts).copy()
    counts[:, 2] = 0
    assert holders_lines(replace(empty, counts=counts))[1] == "fox: no client has a row."


def test_many_clients_and_classes_are_put_together():
    counts = np.zeros((40, 8), int)
    counts[:, 0], counts[3, 1:], counts[5, 1] = 100, 2, 1
    rare = tuple(range(1, 8))
    found = opened(study([result("a", 0, [9] * 8, rare)], [setting("default", tuple("abcdefgh"), counts, rare)]))
    assert found.holding == ["38 of 40 clients have no row of the 7 minority classes."]
    assert all(f">{word}<" in found.holders for word in ("29 others together", "14 (93%)", "1 (7%)", "none"))
