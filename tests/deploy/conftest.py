"""A node's folder and a study plan, for every test of what a node keeps and agrees to."""

from pathlib import Path

import pytest
from study_plans import node_home, plan_of, run_config

from fedimb.deploy.home import NodeHome
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.schema import RunConfig


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    """The folder of st-anna, with the least that a node.yaml says."""
    return node_home(tmp_path / "st-anna")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """A configuration with a method and a prior."""
    return run_config("strategy=[scope,plain]", "prior.provenance=clear_sum")


@pytest.fixture(scope="module")
def plan(config: RunConfig) -> StudyPlan:
    """A study plan for it."""
    return plan_of(config)
