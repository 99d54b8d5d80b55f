"""A federation nobody holds: sizes from the sites, classes from the plan, and no row."""

import numpy as np
import pytest
from study_plans import plan_of, run_config

from fedimb.deploy.coordinator.federation import DeployedFederation
from fedimb.errors import DataError


def made(versions=("a", "b")):
    plan = plan_of(run_config("clients.count=2"))
    return DeployedFederation(plan, ["linz", "va"], versions, [3, 5], [1, 0], None, 0.5, ["0.1.0 a", "0.1.0 b"])


def test_what_a_loop_asks():
    federation = made()
    assert federation.train_sizes.tolist() == [3, 5]
    assert [len(rows) for rows in federation.validation] == [1, 0]
    assert (federation.n_clients, federation.n_classes, federation.minority) == (2, 2, (1,))
    assert (federation.input_shape, federation.input_scale, federation.task) == ((4,), 0.5, "multiclass")
    assert federation.class_names == ("gesund", "schwer krank")
    assert federation.domains == federation.client_names == ("linz", "va")
    assert np.array_equal(federation.counts, np.zeros((2, 2)))
    assert len(federation.test) == 0


def test_no_row_can_be_read():
    with pytest.raises(DataError, match="the rows of a deployment are at its sites"):
        made().store  # noqa: B018
    with pytest.raises(DataError, match="at its sites"):
        made().client(0)


def test_other_versions_of_the_data_are_another_federation():
    assert made().sha == made().sha
    assert len({made(versions).sha for versions in (("a", "b"), ("b", "a"), ("a", "c"))}) == 3
