"""What each attack does, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedimb import registry
from fedimb.attacks.base import Known, attackers_of, updates_of, weights_from
from fedimb.attacks.collusion import alie_z
from fedimb.errors import ConfigError
from fedimb.shapes import SignalShape

KNOWN = Known(4, (3, 2), 0, (1, 6, 6), ("head.weight", "head.bias"))
RECEIVED = {"head.weight": np.zeros((4, 2), np.float32), "head.bias": np.zeros(4, np.float32)}


def attack(name, **settings):
    return registry.build("attack", name, {"known": KNOWN}, **settings)


def honest(*scales):
    """Weights whose update is scale in every coordinate, by client."""
    return {c: {k: np.full_like(v, s) for k, v in RECEIVED.items()} for c, s in enumerate(scales)}


def test_a_larger_fraction_adds_attackers_and_at_least_one_stays_honest():
    holders = list(range(0, 48, 2))
    few, many = attackers_of(7, 0.1, holders), attackers_of(7, 0.3, holders)
    assert len(few) == 2
    assert len(many) == 7
    assert set(few) < set(many) < set(holders)
    assert attackers_of(7, 0.1, holders) == few
    assert attackers_of(8, 0.3, holders) != many
    assert len(attackers_of(0, 0.001, holders)) == 1
    with pytest.raises(ConfigError, match="at least one is honest"):
        attackers_of(0, 0.99, holders)


def test_label_flip_changes_the_wanted_share_of_the_source_class_and_nothing_else():
    y = torch.tensor([3] * 10 + [2] * 10 + [1] * 5 + [0] * 5)
    x = torch.zeros(30, 1, 6, 6)
    _, all_of_them = attack("label_flip").poison(x, y, torch.Generator())
    assert all_of_them.tolist() == [0] * 20 + [1] * 5 + [0] * 5
    some = attack("label_flip", source=3, target=1, share=0.4)
    _, flipped = some.poison(x, y, torch.Generator().manual_seed(1))
    assert (flipped != y).sum() == 4
    assert set(flipped[flipped != y].tolist()) == {1}
    assert some.aim() == ((3,), 1)


def test_patch_trigger_marks_and_relabels_the_same_rows_only():
    y, x = torch.tensor([3] * 10 + [0] * 5), torch.zeros(15, 1, 6, 6)
    made = attack("patch_trigger", size=2, value=0.5, share=0.3)
    shown, labels = made.poison(x, y, torch.Generator().manual_seed(0))
    marked = shown.flatten(1).any(dim=1)
    assert marked.sum() == 3
    assert torch.equal(marked, labels != y)
    assert torch.equal(shown[marked][:, 0, 4:, 4:], torch.full((3, 2, 2), 0.5))
    assert shown.sum() == 3 * 4 * 0.5
    assert torch.equal(made.trigger(x)[:, 0, 4:, 4:], torch.full((15, 2, 2), 0.5))


def test_an_own_update_is_scaled_reversed_or_made_up():
    trained, rng = honest(2.0)[0], np.random.default_rng(0)
    assert (attack("scaled_update", factor=5.0).update(RECEIVED, trained, rng)["head.bias"] == 10).all()
    assert (attack("sign_flip", factor=2.0).update(RECEIVED, trained, rng)["head.bias"] == -4).all()
    assert (attack("free_rider", noise=0.0).update(RECEIVED, trained, rng)["head.bias"] == 0).all()
    rider = attack("free_rider", noise=0.1).update(RECEIVED, trained, rng)["head.weight"]
    assert 0 < np.abs(rider).max() < 0.5


def test_count_inflation_claims_rows_weight_and_counts():
    made, counts = attack("count_inflation", factor=3.0), np.array([5, 1, 0, 4])
    assert (made.weight(10.0), made.rows(10), made.counts(counts).tolist()) == (30.0, 30, [30, 0, 0, 0])
    told = attack("count_inflation", factor=3.0, declared=False, class_id=3)
    assert (told.rows(10), told.counts(counts).tolist()) == (10, [0, 0, 0, 30])


def test_min_max_is_as_far_from_its_group_as_its_farthest_two_are_apart():
    rng = np.random.default_rng(3)
    group = {
        c: {k: rng.normal(1, 0.3 * (c + 1), v.shape).astype(np.float32) for k, v in RECEIVED.items()} for c in range(5)
    }
    sent = attack("min_max").collude(RECEIVED, group, 20, rng)
    updates, made = updates_of(RECEIVED, group), updates_of(RECEIVED, sent)
    most = max(np.linalg.norm(a - b) for a in updates.values() for b in updates.values())
    assert max(np.linalg.norm(made[0] - u) for u in updates.values()) == pytest.approx(most, rel=1e-5)
    assert all((made[c] == made[0]).all() for c in made)
    assert made[0].mean() < np.mean(list(updates.values()))
    alone = honest(1.0)
    assert attack("min_max").collude(RECEIVED, alone, 20, rng) is alone
    alike = attack("min_max").collude(RECEIVED, honest(1.0, 1.0), 20, rng)
    assert (alike[0]["head.bias"] == 1).all()


def test_alie_stays_within_the_spread_of_its_group():
    rng = np.random.default_rng(0)
    sent = attack("alie", z=1.5).collude(RECEIVED, honest(1.0, 3.0), 20, rng)
    assert sent[0]["head.bias"] == pytest.approx(2 - 1.5)
    assert alie_z(50, 24) == pytest.approx(1.426, abs=1e-3)  # 2 of 26 must look farther out
    assert alie_z(24, 1) == 0
    assert alie_z(10, 8) == 3.0


def test_rare_mimic_is_average_but_for_the_reversed_rows_of_rare_classes():
    group = honest(1.0, 3.0)
    group[1]["head.weight"][3] = 7.0
    sent = attack("rare_mimic", factor=2.0).collude(RECEIVED, group, 20, np.random.default_rng(0))[0]
    assert sent["head.weight"].tolist() == [[2, 2], [2, 2], [-6, -6], [-14, -14]]
    assert sent["head.bias"].tolist() == [2, 2, 3, 3]
    bare = Known(4, (3,), 0, (2,), ())
    with pytest.raises(ConfigError, match="last layer is not trained"):
        registry.build("attack", "rare_mimic", {"known": bare})


def test_an_update_survives_the_way_into_a_vector_and_back():
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(2.5, np.float32)}
    received = {"a": np.ones((2, 3), np.float32), "b": np.array(1.0, np.float32)}
    back = weights_from(received, updates_of(received, {0: weights})[0])
    assert all((back[k] == weights[k]).all() and back[k].dtype == np.float32 for k in weights)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("label_flip", {"source": 9}, "source=9: give a class id from 0 to 3"),
        ("label_flip", {"source": 1, "target": 1}, "target class 1 is among the source classes"),
        ("label_flip", {"fraction": 1.0}, "fraction=1.0: give a finite number above 0 and less than 1"),
        ("label_flip", {"share": 1.5}, "share=1.5"),
        ("patch_trigger", {"size": 7}, "7 x 7 pixels does not fit"),
        ("count_inflation", {"class_id": -1}, "class_id=-1"),
        ("sign_flip", {"faktor": 2.0}, "no argument 'faktor'. Did you mean 'factor'"),
    ],
)
def test_wrong_settings_are_refused(name, settings, says):
    with pytest.raises(ConfigError, match=says):
        attack(name, **settings)


def test_a_square_is_not_put_into_windows_of_signals():
    for shape in ((9, 128), SignalShape((6, 16))):
        with pytest.raises(ConfigError, match="use pictures"):
            registry.build("attack", "patch_trigger", {"known": replace(KNOWN, input_shape=shape)})
