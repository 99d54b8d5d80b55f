"""The pace of docs/pace.md is one, by its contract."""

import re
from pathlib import Path

from fedimb import registry
from fedimb.testing import check_pace, paces

PAGE = (Path(__file__).parents[2] / "docs" / "pace.md").read_text()


def test_the_pace_of_the_page_keeps_the_contract(monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.setattr(paces, "check_yaml", lambda *args: None)  # the page has no room for the YAML
    with registry.isolated():
        exec(compile(code, "page", "exec"), {"__name__": "page"})
        check_pace("fastest_half")


def test_every_pace_and_metric_is_on_the_page():
    for name in registry.names("pace"):
        assert f"`{name}`" in PAGE
    for metric in ("time/virtual_s", "exposure/arrived/<class>", "async/staleness/<class>", "async/wasted_steps"):
        assert f"`{metric}`" in PAGE
