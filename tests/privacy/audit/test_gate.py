import json
import math

import numpy as np
import pytest
from leaky import SMALL, batch, copying, gaussian, smote, verdict

from fedimb.errors import DataError
from fedimb.privacy.audit.gate import GateSettings, audit
from fedimb.privacy.audit.types import Audit, Batch, Verdict


def together(*batches):
    return Batch(np.concatenate([b.x for b in batches]), np.concatenate([b.y for b in batches]))


@pytest.mark.parametrize("records", [5, 20, 100])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_generator_that_copies_five_images_is_refused(records, noise):
    rng = np.random.default_rng(1)
    train, holdout = rng.random((records, 1, 8, 8)), rng.random((100, 1, 8, 8))
    found = verdict(copying(rng, train, 100, noise=noise), train, holdout)
    assert found.state == "fail"
    assert found.figures["near_copy_rate"] == 1
    assert found.figures["nearest_ratio"] > 0.9
    assert found.figures["copies"] == (100 if noise == 0 else 0)
    assert math.isnan(found.figures["power"])  # what was found needs no power


@pytest.mark.parametrize("features", [8, 64])
def test_fresh_samples_of_the_true_distribution_pass_with_enough_records(features):
    rng = np.random.default_rng(2)
    train, holdout, made = gaussian(rng, 100, 100, 200, features=features)
    found = verdict(made, train, holdout)
    assert (found.state, found.reasons) == ("pass", ())
    assert found.figures["power"] >= 0.8
    assert found.figures["nearest_ratio_low"] < 0.5 < found.figures["nearest_ratio_high"]
    assert found.figures["copies"] == found.figures["smote_share"] == 0


@pytest.mark.parametrize(("holdout", "samples"), [(20, 200), (100, 8)])
def test_with_few_records_or_few_samples_it_is_undecidable_which_refuses(holdout, samples):
    rng = np.random.default_rng(3)
    train, others, made = gaussian(rng, 20 if holdout == 20 else 100, holdout, samples)
    whole = audit(batch(made), batch(train), batch(others), SMALL, rng)
    assert whole.verdicts[0].state == "undecidable"
    assert whole.verdicts[0].figures["power"] < 0.8
    assert "give more samples" in whole.verdicts[0].reasons[0]
    assert whole.passed == ()


def test_a_tenth_of_copies_is_found_and_power_had_said_so():
    rng = np.random.default_rng(4)
    train, holdout, made = gaussian(rng, 100, 100, 200)
    made[:20] = copying(rng, train, 20, of=100)
    assert verdict(made, train, holdout).state == "fail"


@pytest.mark.parametrize(("records", "count"), [(6, 40), (100, 200)])
def test_smote_never_leaves(records, count):
    rng = np.random.default_rng(5)
    train, holdout = gaussian(rng, records, 100)
    found = verdict(smote(train.astype(np.float32), count, 5, rng), train, holdout)
    assert found.state == "fail"
    assert any("SMOTE" in reason for reason in found.reasons)


def test_smote_is_told_without_a_holdout():
    rng = np.random.default_rng(6)
    (train,) = gaussian(rng, 30)
    found = verdict(smote(train.astype(np.float32), 60, 5, rng), train, np.zeros((0, 8)))
    assert found.state == "fail"
    assert math.isnan(found.figures["smote_reconstructed_p"])


def test_one_exact_copy_is_one_too_many_also_of_another_class():
    rng = np.random.default_rng(7)
    train, holdout, made = gaussian(rng, 100, 100, 300)
    other = rng.normal(size=(50, 8)) + 1
    made[7] = other[3]
    real = together(batch(train), batch(other, 1))
    found = audit(batch(made), real, batch(holdout), SMALL, rng).verdicts[0]
    assert found.state == "fail"
    assert "1 of 300 samples equal" in found.reasons[0]
    assert found.figures["near_copy_p"] > 0.01  # its rate alone would not have told


def test_rows_that_everybody_has_are_no_copies():
    rng = np.random.default_rng(8)
    train, holdout, made = (rng.integers(0, 2, size=(n, 3)) for n in (80, 80, 80))
    found = verdict(made, train, holdout)
    assert found.figures["copies"] == 80
    assert found.figures["copies_holdout"] == 80
    assert found.state == "undecidable"  # nothing could be told of such a table
    assert "planted copies are detected 0%" in found.reasons[0]


def test_samples_that_are_not_finite_are_refused_and_so_are_small_forced_or_lonely_classes():
    rng = np.random.default_rng(9)
    train, holdout, made = gaussian(rng, 100, 100, 50)
    broken = made.copy()
    broken[3, 2], broken[4, 0] = np.nan, np.inf
    found = verdict(broken, train, holdout)
    assert (found.state, found.reasons) == ("refused", ("2 of 50 samples hold values that are not finite",))
    assert verdict(made, train[:19], holdout).state == "refused"
    assert verdict(made, train, holdout, GateSettings(forced=(0,), draws=15)).state == "refused"
    two = GateSettings(min_holders=2, draws=15)
    assert verdict(made, train, holdout, two).state == "refused"  # unknown is not enough
    assert verdict(made, train, holdout, two, holders=np.array([1])).state == "refused"
    known = verdict(made, train, holdout, two, holders=np.array([2]))
    assert (known.state, known.figures["holders"]) == ("pass", 2.0)


def test_the_minimum_count_is_of_patients_where_they_are_named():
    rng = np.random.default_rng(10)
    train, holdout, made = gaussian(rng, 100, 100, 100)
    real = batch(train, units=np.arange(100) // 10)
    found = audit(batch(made), real, batch(holdout), SMALL, rng).verdicts[0]
    assert found.state == "refused"
    assert found.reasons == ("10 training patients, fewer than min_count=20",)


def test_doubles_of_one_patient_do_not_make_the_gate_blind_where_patients_are_named():
    rng = np.random.default_rng(19)
    first, held, made = gaussian(rng, 40, 40, 200)
    train, holdout = (np.concatenate([x, x + 0.01 * rng.normal(size=x.shape)]) for x in (first, held))
    patients = np.tile(np.arange(40), 2)
    settings = GateSettings(draws=15, bootstrap=20)
    for units, state in ((None, "undecidable"), (patients, "pass")):
        real = batch(train, units=units), batch(holdout, units=None if units is None else units + 40)
        assert audit(batch(made), *real, settings, np.random.default_rng(0)).verdicts[0].state == state


def test_a_class_without_holdout_or_without_any_record():
    rng = np.random.default_rng(11)
    train, holdout, made = gaussian(rng, 100, 100, 50)
    real = together(batch(train), batch(train + 9, 1))
    made = together(batch(made), batch(rng.normal(size=(50, 8)) + 9, 1), batch(made, 2))
    found = audit(made, real, batch(holdout), SMALL, rng)
    assert [found.verdicts[c].state for c in (0, 1, 2)] == ["pass", "undecidable", "refused"]
    assert "no holdout record" in found.verdicts[1].reasons[0]
    assert found.verdicts[2].reasons == ("0 training records, fewer than min_count=20",)
    assert found.passed == (0,)
    assert set(found.verdicts) == {0, 1, 2}


def test_the_attack_decides_where_distances_do_not_tell():
    rng = np.random.default_rng(12)
    train, holdout, made = gaussian(rng, 100, 100, 200)
    known = {row.tobytes() for row in train.astype(np.float32)}

    def knows(x, y, d):
        assert (y == 0).all()
        assert (d == 0).all()
        return np.array([row.tobytes() in known for row in x]) + 0.3 * rng.normal(size=len(x))

    found = verdict(made, train, holdout, attack=knows)
    assert found.state == "fail"
    assert all("membership" in reason for reason in found.reasons)
    assert found.figures["mia_auc"] > 0.95
    guess = verdict(made, train, holdout, attack=lambda x, y, d: rng.normal(size=len(x)))
    assert guess.state == "pass"
    assert guess.figures["mia_auc_low"] <= 0.5 <= guess.figures["mia_auc_high"]
    unsure = verdict(made, train, holdout, attack=lambda x, y, d: np.full(len(x), np.nan))
    assert unsure.state == "undecidable"
    with pytest.raises(DataError, match="return one each"):
        verdict(made, train, holdout, attack=lambda x, y, d: np.zeros(3))


def test_the_attack_is_told_the_device():
    rng = np.random.default_rng(13)
    train, holdout, made = gaussian(rng, 40, 60, 40)
    seen = []

    def attack(x, y, d):
        seen.append(d)
        return np.zeros(len(x))

    audit(batch(made), batch(train, d=np.arange(40) % 3), batch(holdout), SMALL, rng, attack)
    assert seen[0].tolist() == [*(np.arange(40) % 3), *[0] * 60]


def test_copies_that_only_features_show():
    rng = np.random.default_rng(14)
    train, holdout, made = gaussian(rng, 100, 100, 200, features=40)
    made[:, :4] = copying(rng, train, 200)[:, :4]  # the other 36 columns are noise
    assert verdict(made, train, holdout).state == "pass"
    found = verdict(made, train, holdout, features=lambda x: x[:, :4])
    assert found.state == "fail"
    assert all("(features)" in reason for reason in found.reasons)
    assert "features_near_copy_rate" in found.figures
    with pytest.raises(DataError, match="features"):
        verdict(made, train, holdout, features=lambda x: np.full((len(x), 1), np.nan))


def test_a_memorised_tail_does_not_hide_behind_the_head():
    rng = np.random.default_rng(15)
    head, tail, made = gaussian(rng, 150, 30, 200)
    held_head, held_tail = gaussian(rng, 100, 100)
    real = together(batch(head), batch(tail + 6, 1))
    samples = together(batch(made), batch(copying(rng, tail, 60) + 6, 1))
    found = audit(samples, real, together(batch(held_head), batch(held_tail + 6, 1)), SMALL, rng)
    assert [found.verdicts[c].state for c in (0, 1)] == ["pass", "fail"]


def test_bad_records_are_told():
    rng = np.random.default_rng(16)
    train, holdout, made = gaussian(rng, 30, 30, 30)
    with pytest.raises(DataError, match="no training record"):
        verdict(made, train[:0], holdout)
    with pytest.raises(DataError, match="holdout records have shape"):
        verdict(made, train, holdout[:, :7])
    train[0, 0] = np.nan
    with pytest.raises(DataError, match="train holds values"):
        verdict(made, train, holdout)


def test_the_same_seed_gives_the_same_audit_and_facts_are_json():
    rng = np.random.default_rng(17)
    train, holdout, made = gaussian(rng, 40, 60, 80)
    one, two = (audit(batch(made), batch(train), batch(holdout), SMALL, np.random.default_rng(1)) for _ in range(2))
    assert json.dumps(one.facts(), allow_nan=False) == json.dumps(two.facts(), allow_nan=False)
    shown = Audit({2: Verdict("refused", ("why",), {"power": math.nan, "count": 3.0})})
    assert shown.facts() == {"2": {"state": "refused", "reasons": ["why"], "figures": {"power": None, "count": 3.0}}}
    metrics = shown.metrics(["a", "b", "c"])
    assert metrics.pop("privacy/power/c") != metrics.get("nothing")  # NaN stays NaN
    assert metrics == {"privacy/count/c": 3.0, "privacy/passed/c": 0.0}
