"""Made rows of a table, put back onto its categories.

A generator of numbers, SMOTE's points between rows and means of rows leave a categorical column between categories,
or a "missing" mark between 0 and 1, which no row of the table is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedimb.errors import ConfigError

Categories = Sequence[Sequence[int]]
"""Of each categorical column, and of each "missing" mark: its first one-hot column, and the one after its last."""


def nearest_categories(x: Tensor, categories: Categories) -> Tensor:
    """Rows [n, columns] float with every categorical column at the nearest of what it can be: a category, or none.

    None has zeros in all of its columns. Ties to the first category, and to a category before none. Numbers stay. The
    same tensor if there are no categories.

    Example:
        >>> nearest_categories(torch.tensor([[0.4, 0.2, 0.5, 0.1], [0.4, 0.1, 0.3, 0.7]]), [(1, 3), (3, 4)]).tolist()
        [[0.4000000059604645, 0.0, 1.0, 0.0], [0.4000000059604645, 0.0, 0.0, 1.0]]
    """
    if not len(categories):
        return x
    made = x.clone()
    for start, stop in categories:
        block = x[:, start:stop]
        none = 1 - block.sum(1, keepdim=True)  # what is left of 1: a row with a category has nothing left
        choice = torch.cat([block, none], dim=1).argmax(1)
        made[:, start:stop] = torch.nn.functional.one_hot(choice, stop - start + 1)[:, :-1].to(x.dtype)
    return made


def check_categories(name: str, categories: Categories, columns: int) -> tuple[tuple[int, int], ...]:
    """A generator's categories as pairs, if they are spans of its columns that do not overlap.

    Raises:
        ConfigError: they are not; names the span.
    """
    end, found = 0, []
    for pair in sorted(tuple(one) for one in categories):
        if len(pair) != 2 or not end <= pair[0] < pair[1] <= columns:
            raise ConfigError(
                f"generator '{name}': categories={[list(one) for one in categories]}: {list(pair)} is not a span "
                f"[first, after the last] of the {columns} columns beside the others"
            )
        end = pair[1]
        found.append((pair[0], pair[1]))
    return tuple(found)


__all__ = ["Categories", "check_categories", "nearest_categories"]
