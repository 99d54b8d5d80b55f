import math

import pytest

from fedimb.report.groups import group_rows


def run(label, seed, value=0.5, **more):
    return {
        "label": label,
        "seed": seed,
        "metrics": {"macro_recall": value},
        "bytes": 1,
        "seconds": 1.0,
    } | more


def test_every_run_is_counted_somewhere():
    rows = [
        run("b", 0),
        run("a", 0, 0.2),
        run("b", 1, math.nan),
        run("b", 2, status="failed", metrics={}),
        run("b", 3, status="diverged"),
        run("a", 1, 0.4),
    ]
    b, a = group_rows(rows)
    assert (b.label, a.label) == ("b", "a")
    assert (b.runs, len(b.finished), b.complete, a.complete) == (4, 1, False, True)
    assert b.trouble == "1 failed (seed 2), 2 diverged (seeds 1, 3)"
    assert a.interval("macro_recall")[0] == pytest.approx(0.3)
    assert math.isnan(a.interval("minority_recall")[0])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([run("a", 0), run("a", 0)], "two results for 'a' seed 0"),
        ([run("a", 0, status="done")], "status 'done'"),
    ],
)
def test_rows_that_would_mislead_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        group_rows(rows)


def test_a_failed_try_and_its_repeat_are_both_shown():
    (group,) = group_rows([run("a", 0, status="failed"), run("a", 0)])
    assert (group.runs, len(group.finished)) == (2, 1)
