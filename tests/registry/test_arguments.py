"""What an argument's value must be is said in full."""

from typing import Any, Literal

import pytest

from fedimb.registry.arguments import typed


@pytest.mark.parametrize(
    ("annotation", "value", "line"),
    [
        (float | Literal["found", "asked"], "fond", "input should be a valid number or 'found' or 'asked'"),
        (str | list[str], 3, "input should be a valid string or a valid array"),
        (tuple[int, ...] | Literal["all"], [1, "x"], "[1] input should be a valid integer"),
        (dict[str, float], {"a": "x", "b": "y"}, "input should be a valid number"),
    ],
)
def test_every_kind_of_a_union_is_named_and_one_place(annotation: Any, value: object, line: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        typed(annotation, value)
    assert str(caught.value) == line
