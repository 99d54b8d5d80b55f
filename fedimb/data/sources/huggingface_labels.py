"""The label column of a Hugging Face data set: one class per row, or a list of them."""

from typing import Any

from fedimb.data.identifiers import identifier
from fedimb.data.labels import check_row
from fedimb.errors import DataError


def is_list(feature: object) -> bool:
    """Whether a column's feature is a list: Sequence(...), List(...), or a Python list of one feature."""
    return isinstance(feature, list) or hasattr(feature, "feature")


def of_one(feature: object) -> object:
    """The feature of one label, inside a list or not."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", feature)


def one_label(label: Any, names: list[str] | None) -> str:
    """The class name of a label: an id into ``names``, or any value if ``names`` is None. DataError if it is
    neither."""
    if label is None or label == "":
        raise DataError("the label is missing")
    if names is None:
        return identifier(label)
    if isinstance(label, int) and not 0 <= label < len(names):
        raise DataError(f"label {label} is not one of the {len(names)} classes (-1 is a hidden label)")
    return names[label]


def several_labels(label: object, names: list[str] | None) -> tuple[str, ...]:
    """The class names of a row's list of labels, which may be empty. DataError says what is wrong with it."""
    if not isinstance(label, list):
        raise DataError("the labels are missing; a row without any has an empty list")
    if any(isinstance(one, (list, dict)) for one in label):
        raise DataError("a label is not a class; give a list of classes")
    labels = tuple(one_label(one, names) for one in label)
    check_row(labels)
    return labels
