"""docs/attacks.md: its example keeps the contract, and its table names every attack."""

import re
from pathlib import Path

from fedimb import registry

PAGE = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_its_example_is_an_attack():
    code, test = BLOCKS
    with registry.isolated():
        names: dict = {"__name__": "gaussian_attack"}
        exec(compile(code, "attacks.md", "exec"), names)
        exec(compile(test, "attacks.md", "exec"), names)
        names["test_contract"]()


def test_its_table_names_every_attack():
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert set(registry.names("attack")) - {"none"} <= named
