import warnings

import pytest
import torch

from fedimb.errors import DataError
from fedimb.selection.centres import class_means, median_of_centres


def test_class_means_are_means_and_nan_without_rows():
    features = torch.tensor([[1.0, 2], [3, 4], [5, 7]])
    found = class_means(features, torch.tensor([2, 2, 0]), 4)
    assert found[0].tolist() == [5, 7]
    assert found[2].tolist() == [2, 3]
    assert torch.isnan(found[[1, 3]]).all()
    with pytest.raises(DataError, match="features of 1 of 3"):
        class_means(features.index_fill(0, torch.tensor([1]), torch.nan), torch.tensor([2, 2, 0]), 4)


def test_the_median_is_element_wise_over_those_who_hold_the_class():
    nan = float("nan")
    centres = torch.tensor(
        [[[1.0, 9], [nan, nan], [1, 2]], [[2, 8], [nan, nan], [3, 4]], [[7, 1], [nan, nan], [nan, nan]]]
    )
    found = median_of_centres(centres)
    assert found[0].tolist() == [2, 8]
    assert torch.isnan(found[1]).all()
    assert found[2].tolist() == [2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        median_of_centres(centres)
    with pytest.raises(DataError, match="at least one client"):
        median_of_centres(torch.zeros(0, 3, 2))
