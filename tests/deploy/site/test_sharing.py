"""The site's sharing policy against single records: whose figures they are, and of how many patients."""

import numpy as np
import pytest

from fedimb import registry
from fedimb.contracts.base import Record
from fedimb.contracts.platform import EXPLAINED_OVERALL_RECORD, PLATFORM
from fedimb.deploy.home import SharingConfig
from fedimb.deploy.site.sharing import Patients, refusal
from fedimb.records import array_record

PER_CLASS = Record("x.sums", "arrays", "sums", "aggregate", about="class")
COUNTS = Record("x.counts", "arrays", "rows", "aggregate", about="class", reveals="class_counts")
WHOLE = Record("x.mean", "arrays", "mean", "aggregate")
MASKED = Record("x.masked", "arrays", "masked", "aggregate", about="masked")
WEIGHTS = Record("arrays", "arrays", "weights", "model")
STEPS = Record("metrics", "metrics", "steps", "operational")
FEW = Patients(20, (17, 3, 0))


@pytest.mark.parametrize(
    ("record", "array", "patients", "leaves"),
    [
        (PER_CLASS, np.array([[1.0], [2.0], [0.0]]), FEW, False),  # class 1 has 3 patients
        (PER_CLASS, np.array([[1.0], [0.0], [0.0]]), FEW, True),
        (PER_CLASS, np.array([[1.0], [np.nan], [0.0]]), FEW, True),
        (PER_CLASS, np.array([[1.0], [2.0], [0.0]]), Patients(30, (17, 13, 0)), True),
        (PER_CLASS, np.array([1.0, 2.0]), FEW, False),  # nothing says whose figures these are
        (PER_CLASS, np.array([5.0]), FEW, True),
        (COUNTS, np.array([17, 0, 0]), FEW, True),
        (COUNTS, np.array([17, 0, 0]), Patients(4, (4, 0, 0)), False),
        (COUNTS, np.array([4, 0, 0]), FEW, False),  # of 17 patients, but about 4 rows
        (COUNTS, np.array([[3, 2, 0], [0, 0, 0], [0, 0, 0]]), FEW, True),
        (COUNTS, np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]), FEW, False),
        (WHOLE, np.array([1.0]), FEW, True),
        (WHOLE, np.array([1.0]), Patients(4, (4, 0, 0)), False),
        (WHOLE, np.array([1.0]), None, False),
        (MASKED, np.array([1, 2, 3], np.uint64), Patients(4, (1, 2, 1)), True),
        (WEIGHTS, np.array([1.0]), FEW, True),
        (WEIGHTS, np.array([1.0]), Patients(4, (4, 0, 0)), False),
        (STEPS, np.array([1.0]), None, True),
    ],
)
def test_no_statistic_of_fewer_than_five_patients(record, array, patients, leaves):
    why = refusal(SharingConfig(min_patients=5), record, array_record({"a": array}), patients)
    assert (why is None) is leaves
    if why:
        assert "statistics of fewer than 5 patients" in why
    assert refusal(SharingConfig(), record, array_record({"a": array}), patients) is None


@pytest.mark.parametrize(("leaf", "leaves"), [(5, True), (4, False)])
def test_no_leaf_of_a_tree_is_of_fewer(leaf, leaves):
    """Whatever floor the plan has: the site's own number is the last word."""
    tree = array_record({"surrogate_tree/leaf_rows": np.array([0, 20, leaf]), "surrogate_tree/left": np.array([1, 2])})
    why = refusal(SharingConfig(min_patients=5), EXPLAINED_OVERALL_RECORD, tree, Patients(30, (17, 13, 0)))
    assert (why is None) is leaves


@pytest.mark.parametrize(("people", "leaves"), [(5, True), (4, False)])
def test_no_mean_of_a_group_is_of_fewer(people, leaves):
    (record,) = registry.build("contract", "c2tc").queries["c2tc_centroids"]
    groups = np.array([[8, people], [0, 0], [0, 0]])
    own = {"centres": np.ones((3, 2, 4), np.float32), "rows": 3 * groups, "people": groups}
    own["centres"][1:] = np.nan
    assert (refusal(SharingConfig(min_patients=5), record, array_record(own), FEW) is None) is leaves
    said = refusal(SharingConfig(class_counts=False), record, array_record(own), FEW)
    assert said.startswith("class_counts (x.centroids)")


def test_a_confusion_matrix_refused_says_how_it_could_leave():
    records = {record.key: record for record in [*PLATFORM.train, *PLATFORM.queries["scored"]]}
    for key in ("x.scores", "x.confusion"):
        said = refusal(SharingConfig(class_counts=False), records[key], None, None)
        assert said == f"class_counts ({key}): set evaluation.secure=true"
    masked = PLATFORM.queries["masked_scores"][0]
    assert refusal(SharingConfig(class_counts=False, min_patients=5), masked, None, None) is None
