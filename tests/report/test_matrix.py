import numpy as np

from fedimb.report.matrix import matrix_lines


def test_by_hand():
    counts = np.array([[1200, 3], [0, 1]])
    assert matrix_lines(counts, ["sick", "well"], [0, 1], (1,), "client", ["0", "1"]) == [
        "client \\ class   rows  classes   sick  well<",
        "0               1,203        2  1,200      3",
        "1                   1        1      .      1",
        "all             1,204        2  1,200      4",
    ]


def test_many_rows_fold_to_the_largest_and_smallest_and_keep_their_sums():
    counts = np.arange(50)[:, None] * np.array([[2, 1]])
    lines = matrix_lines(counts, ["a", "b"], [0, 1], (), "client", [str(k) for k in range(50)])
    assert len(lines) == 1 + 10 + 1 + 10 + 1
    assert [line.split()[0] for line in lines[1:11]] == [str(k) for k in range(49, 39, -1)]
    assert [line.split()[0] for line in lines[12:22]] == [str(k) for k in range(9, -1, -1)]
    between = sum(range(10, 40))
    assert lines[11].split() == ["...", "30", "between", f"{3 * between:,}", "2", f"{2 * between:,}", f"{between:,}"]
    assert lines[-1].split() == ["all", "3,675", "2", "2,450", "1,225"]


def test_many_classes_fold_to_head_and_tail_within_a_line():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 900, (4, 200))
    order = np.argsort(-counts.sum(axis=0), kind="stable").tolist()
    names = [f"a class with a long name {c}" for c in range(200)]
    lines = matrix_lines(counts, names, order, tuple(order[-60:]), "client", list("0123"))
    assert max(map(len, lines)) < 100
    head = lines[0].split("  ")
    assert "client \\ class id" in lines[0]
    shown = [int(word.rstrip("<")) for word in " ".join(head[1:]).split() if word.rstrip("<").isdigit()]
    fold = next(word for word in lines[0].split() if word.startswith("+"))
    assert int(fold[1:]) + len(shown) == 200
    left = shown.index(order[-1]) + 1 - next(n for n in range(1, 99) if order[-n] not in shown) + 1
    assert shown == order[:left] + order[left - len(shown) :]
    for k, line in enumerate(lines[1:5]):
        words = [int(word.replace(",", "").replace(".", "0")) for word in line.split()]
        assert words[0] == k
        assert words[1] == counts[k].sum() == sum(words[3:])
        assert words[2] == (counts[k] > 0).sum()


def test_names_that_do_not_fit_together_become_ids():
    names = [f"class {c}" for c in range(14)]
    lines = matrix_lines(np.ones((1, 14), int), names, list(range(14)), (), "site", ["only"])
    assert lines[0].split() == ["site", "\\", "class", "id", "rows", "classes", *map(str, range(14))]
    assert len(lines) == 2
