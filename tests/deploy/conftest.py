"""A node's folder, for every test of what a node keeps."""

from pathlib import Path

import pytest

from fedimb.deploy.home import NodeHome


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    """The folder of st-anna, with the least that a node.yaml says."""
    root = tmp_path / "st-anna"
    root.mkdir(mode=0o700)
    (root / "node.yaml").write_text("site: st-anna\n")
    return NodeHome.open(root)
