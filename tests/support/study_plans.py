"""A small study plan for tests, and a node's folder."""

from pathlib import Path

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.deploy.home import NodeHome
from fedimb.deploy.study_plan.plan import StudyPlan, make_plan
from fedimb.deploy.study_plan.ranges import Range
from fedimb.schema import RunConfig


def run_config(*overrides: str) -> RunConfig:
    """A configuration on digits with a logistic model."""
    return validate(compose(["model=logistic", "rounds=5", *overrides]))


def plan_of(config: RunConfig, **change) -> StudyPlan:
    """A plan of two classes and four numbers per row, rounds 1 to 8 and any seed."""
    about = {
        "purpose": "Seltene Fälle: Größe | <b>Übung</b>",
        "contacts": ["Dr. Jürgen Müller, +49 30 1234"],
        "created": "2026-01-01T00:00:00Z",
        "expires": "2126-01-01T00:00:00Z",
        "vary": {"rounds": Range(low=1, high=8), "seed": Range()},
        "tags": ["heart"],
        "classes": ["gesund", "schwer krank"],
        "minority": ["schwer krank"],
        "input_shape": [4],
    }
    return make_plan("heart", config, **(about | change))


def node_home(folder: Path, text: str = "site: st-anna\n") -> NodeHome:
    """A node's folder with nothing but its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "node.yaml").write_text(text, encoding="utf-8")
    return NodeHome.open(folder)
