"""What every method that averages features by class has in common: the record in which a client sends their sums."""

from fedimb.contracts.base import Record, Values, counts


def class_sums(key: str) -> Record:
    """The record ``key``: ``sums`` [C, d] float32 of the features of each class's rows, and ``counts`` [C] int64.

    A method that sends it has a setting ``min_count``: classes of fewer rows are 0 in both.
    """
    return Record(
        key,
        "arrays",
        "per class: number of rows, and the sum of their features; left out below a minimum count",
        "aggregate",
        dtypes=("float32", "int64"),
        reveals="class_counts",
        about="class",
        shape="C x d + C",
        values={"sums": Values("C x d"), "counts": counts("C")},
    )
