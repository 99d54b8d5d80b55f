import numpy as np
import pytest
from leaky import batch, smote
from sklearn.datasets import load_digits

from fedimb.privacy.audit.class_tests import smote_test
from fedimb.privacy.audit.distances import flatten, rounding_tolerance
from fedimb.privacy.audit.smote import find_triples, lies_between, match_records, reconstruct


def told(made, train, holdout):
    figures, reasons = smote_test(batch(made), batch(train), batch(holdout), 0.0125, np.random.default_rng(0))
    return figures, reasons


@pytest.mark.parametrize("features", [2, 3, 24])
@pytest.mark.parametrize(("records", "count"), [(6, 2), (6, 200), (20, 40), (70, 300)])
def test_every_smote_set_is_told_and_no_gaussian_one(features, records, count):
    rng = np.random.default_rng([features, records])
    train, holdout = rng.normal(size=(records, features)), rng.normal(size=(records, features))
    train = train.astype(np.float32)
    figures, reasons = told(smote(train, count, 5, rng), train, holdout)
    assert figures["smote_share"] >= 0.98  # one that falls upon its own end is a copy
    assert any("lie between" in reason for reason in reasons)
    figures, reasons = told(rng.normal(size=(count, features)), train, holdout)
    assert reasons == []
    assert figures["smote_share"] <= 0.02


def test_pictures_rounded_to_256_levels_are_told_too():
    digits = load_digits()
    threes = digits.images[digits.target == 3][:, None].astype(np.float32) / 16
    rng = np.random.default_rng(1)
    made = np.rint(smote(threes[:20], 200, 5, rng) * 255) / 255
    figures, reasons = told(made, threes[:20], threes[20:120])
    assert figures["smote_share"] > 0.85
    assert figures["smote_control"] == 0
    assert len(reasons) == 2  # and the records can be reconstructed
    assert figures["smote_reconstructed"] >= 5


def test_records_are_reconstructed_from_the_samples_alone():
    rng = np.random.default_rng(2)
    train = rng.normal(size=(12, 6)).astype(np.float32)
    made = smote(train, 400, 5, rng)
    unit = rounding_tolerance(made, train)
    claimed = reconstruct(flatten(made) / unit, rng) * unit
    apart = np.linalg.norm(claimed[:, None] - train, axis=2)
    assert (apart.min(0) < 1e-3).all()  # all twelve
    assert (apart.min(1) < 1e-3).mean() > 0.9  # and hardly anything else
    assert match_records(claimed, flatten(train), 1e-3).all()
    assert not match_records(claimed, flatten(train) + 1, 1e-3).any()
    assert len(reconstruct(rng.normal(size=(300, 6)) / unit, rng)) == 0


def test_a_tenth_of_smote_among_honest_samples_is_told():
    rng = np.random.default_rng(3)
    train, holdout, made = (rng.normal(size=(n, 8)).astype(np.float32) for n in (60, 60, 200))
    made[:20] = smote(train, 20, 5, rng)
    figures, reasons = told(made, train, holdout)
    assert figures["smote_share"] == pytest.approx(0.1, abs=0.006)
    assert len(reasons) == 1


def test_between_is_strict_and_ignores_copies_and_the_line_beyond():
    records = np.array([[0.0, 0.0], [10_000.0, 0.0], [0.0, 9_000.0]])
    points = np.array([[5_000.0, 0.4], [5_000.0, 60.0], [-4_000.0, 0.0], [0.0, 0.0], [4_000.0, 5_400.0]])
    assert lies_between(points, records).tolist() == [True, False, False, False, True]
    row = np.array([[0.0, 0.0], [10_000.0, 0.0], [5_000.0, 0.0]])
    assert lies_between(row, row, same=True).tolist() == [False, False, True]


@pytest.mark.parametrize("records", [0, 1])
def test_too_few_points_give_nothing(records):
    assert len(find_triples(np.zeros((3, 2)), np.zeros((records, 2))).middle) == 0
    assert len(reconstruct(np.zeros((records, 2)), np.random.default_rng(0))) == 0
    assert len(reconstruct(np.zeros((9, 1)), np.random.default_rng(0))) == 0


def test_coarse_tables_show_in_the_control_that_smote_cannot_be_told():
    rng = np.random.default_rng(4)
    train, holdout, made = (rng.integers(0, 5, size=(n, 3)) for n in (60, 60, 60))
    figures, reasons = told(made, train, holdout)
    assert figures["smote_control"] > 0.2
    assert reasons == []
