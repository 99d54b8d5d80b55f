"""Apply the site's sharing policy (``sharing:`` in node.yaml) to records that are about to leave.

The policy knows what a contract declares about a record (`fedimb.contracts.base.Record`), the record's values, and the
number of registered patients. A statistic over a subset of them (such as the labelled ones) is judged by its own counts
if the record has any, otherwise by the registered patients.
"""

from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord

from fedimb.contracts.base import Record
from fedimb.contracts.platform import CONFUSION, EXPLAINED_OVERALL, SCORES, SUBGROUPS
from fedimb.deploy.home import SharingConfig

CLASS_COUNTS = "class_counts"


@dataclass(frozen=True)
class Patients:
    """Number of registered patients at the site (rows, if there is no patient column).

    Attributes:
        total: over all classes.
        per_class: for each of the C classes.
    """

    total: int
    per_class: tuple[int, ...]


def refusal(sharing: SharingConfig, record: Record, value: object, patients: Patients | None) -> str | None:
    """Why the site blocks a record, without revealing its values; None if the record may leave.

    Args:
        sharing: the site's policy.
        record: the record's declaration in the contract.
        value: the record's content (a Flower record).
        patients: patients in the data the run uses; None: unknown, which ``min_patients`` treats as too few.
    """
    if record.reveals == CLASS_COUNTS and not sharing.class_counts and record.key in (SCORES, CONFUSION, SUBGROUPS):
        return f"class_counts ({record.key}): set evaluation.secure=true"
    if record.reveals == CLASS_COUNTS and not sharing.class_counts:
        return f"class_counts ({record.key}): set prior.provenance=none, estimated or secure_sum" + (
            "" if record.key == "x.counts" else ", and a method that sends no counts"
        )
    if record.reveals == "synthetic" and not sharing.synthetic:
        return f"synthetic ({record.key}): run a method that sends no samples"
    if record.sensitivity == "individual" and not sharing.individual:
        return f"individual ({record.key}): run a method that sends nothing about single patients"
    least = sharing.min_patients
    if least > 1 and _of_fewer(least, record, value, patients):
        return (
            f"statistics of fewer than {least} patients ({record.key}): raise the method's min_count, send masked sums "
            "(prior.provenance=secure_sum, evaluation.secure=true) or continue without this site"
        )
    return None


def _of_fewer(least: int, record: Record, value: object, patients: Patients | None) -> bool:
    if record.sensitivity == "operational" or record.about == "masked":
        return False
    if record.sensitivity == "individual" or patients is None or patients.total < least:
        return True
    if record.key == EXPLAINED_OVERALL and isinstance(value, ArrayRecord):
        leaves = [array.numpy() for name, array in value.items() if name.endswith("/leaf_rows")]
        return any(bool(np.any((rows > 0) & (rows < least))) for rows in leaves)
    if record.about != "class":
        return False
    if isinstance(value, ArrayRecord) and "people" in value:  # of every cell, which is of a class or within one
        people = value["people"].numpy()
        if bool(np.any((people > 0) & (people < least))):
            return True
        if record.key == SUBGROUPS:  # its other arrays are about the same cells
            return False
    if not isinstance(value, ArrayRecord):
        return True  # it is unknown which figure belongs to which class
    few = np.array([0 < count < least for count in patients.per_class])
    return any(
        _reveals_few_patients(array.numpy(), few, record.reveals == CLASS_COUNTS, least) for array in value.values()
    )


def _reveals_few_patients(array: np.ndarray, few: np.ndarray, counts: bool, least: int) -> bool:
    """Whether an array has figures about a class with few patients, or counts few rows."""
    if array.size <= 1:
        return False
    if array.ndim == 0 or array.shape[0] != len(few):
        return True
    rows = array.reshape(len(few), -1)
    if np.any(np.nan_to_num(rows[few]) != 0):
        return True
    if not counts or array.dtype.kind not in "iu":
        return False
    sizes = rows.astype(np.int64).sum(axis=1)
    return bool(np.any((sizes > 0) & (sizes < least)))
