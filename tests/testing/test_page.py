"""docs/testing-plug-ins.md: its examples run as they are written, and it names every check there is."""

import re
from pathlib import Path

import pytest

import fedimb.testing

PAGE = (Path(__file__).parents[2] / "docs" / "testing-plug-ins.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0].rpartition(" ")[2])
def test_its_examples_run(code):
    names = {}
    exec(compile(code, "testing-plug-ins.md", "exec"), names)
    for name, value in names.items():
        if name.startswith("test_"):
            value()


def test_it_names_every_check():
    checks = {name for name in fedimb.testing.__all__ if name.startswith("check_")}
    assert checks == set(re.findall(r"check_[a-z]+", PAGE)) & checks
    assert len(checks) == 16
