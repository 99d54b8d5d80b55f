import pytest
import torch

from fedimb.encoders.checks import class_names_expected, finite_rows, images_expected, unit_rows
from fedimb.errors import ConfigError, DataError


def test_unit_rows_have_length_one_and_a_row_of_zeros_stays():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e30, 0.0], [0.0, -1e-40]])
    assert torch.allclose(unit_rows(x), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0], [0.0, -1.0]]))
    assert unit_rows(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_row_that_is_not_finite_is_named(value):
    x = torch.ones(5, 2)
    x[3, 1] = x[4, 0] = value
    with pytest.raises(DataError, match=r"here: row 3 of 5 has a NaN or infinite embedding \(2 such rows\)"):
        finite_rows("here", x)
    with pytest.raises(DataError, match="row 3 of 5"):
        unit_rows(x)


def test_images_are_two_or_three_axes():
    assert images_expected("e", (8, 9)) == (1, 8, 9)
    assert images_expected("e", (3, 8, 9)) == (3, 8, 9)
    for shape in ((5,), (1, 2, 3, 4), ()):
        with pytest.raises(ConfigError, match="encoder 'e' reads images"):
            images_expected("e", shape)


@pytest.mark.parametrize(
    ("names", "words"),
    [((), "no class names"), (("a", "\t"), "class 1 has an empty name"), (("a", "b", "a"), "'a' names two classes")],
)
def test_class_names_that_cannot_be_read(names, words):
    with pytest.raises(ConfigError, match=words):
        class_names_expected("e", names)
    class_names_expected("e", ("a", "b"))
