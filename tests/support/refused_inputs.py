"""Counts the inputs that tests of data expect to be refused or left out, a parametrized case as one.

    python tests/support/refused_inputs.py

A case counts if its test calls `pytest.raises`; a case of several settings of one source counts once for each.
"""

import contextlib
import inspect
import io
import sys
from collections import Counter

import pytest


class Refusals:
    """A pytest plug-in that counts collected cases by file."""

    def __init__(self) -> None:
        self.by_file: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Count the cases whose test expects an error."""
        for item in items:
            function = getattr(item, "function", None)
            if function is not None and "pytest.raises(" in inspect.getsource(function):
                self.by_file[item.path.name] += 1


def count_refusals(*paths: str) -> Counter[str]:
    """File name -> refused inputs, of the tests below these paths."""
    plugin = Refusals()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "-q", *paths], plugins=[plugin])
    return plugin.by_file


if __name__ == "__main__":
    counted = count_refusals(*(sys.argv[1:] or ["tests/data"]))
    for name, number in sorted(counted.items()):
        print(f"{number:5} {name}")
    print(f"{counted.total():5} in all")
