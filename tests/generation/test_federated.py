"""A generator of all sites: who is sent which rows, what is drawn, and what its weights give away."""

import numpy as np
import pytest

from fedimb.generation.federated import (
    MEASURED,
    MOST_ATTACKED,
    RowsByGroup,
    at_least,
    draw_by_class,
    load_into,
    state_of,
    teaching_classes,
    weight_leakage,
)
from fedimb.generation.training import train_generator
from fedimb.privacy.audit.types import Batch, GateSettings
from tests.generation.generator_cases import SHORT, TRAINABLE, build, examples, shape_of


def trained(name):
    generator = build(name)
    generator.set_common_scale()
    rows = RowsByGroup.of(generator)
    train_generator(generator, examples(shape_of(name), counts=(9, 7, 8)), SHORT, 0)
    return generator, rows


@pytest.mark.parametrize("name", TRAINABLE)
def test_only_a_sites_own_rows_are_kept_and_its_samples_stay_the_same(name):
    generator, rows = trained(name)
    state = state_of(generator)
    own, devices = np.array([True, False, True]), np.array([False, True])
    sent = rows.only(state, own, devices)
    for group, kept in ((rows.classes, own), (rows.domains, devices)):
        for entry in set(group) - {"cell_seen"}:
            for row, whole in enumerate(kept):
                source = state if whole else rows.initial
                np.testing.assert_array_equal(sent[entry][row], source[entry][row])
            np.testing.assert_array_equal(sent[entry][len(kept) :], state[entry][len(kept) :])
    assert not sent["cell_seen"][1].any()
    assert not sent["cell_seen"][:, 0].any(), "on which other devices a class is, is nobody's business"
    others = set(state) - set(rows.classes) - set(rows.domains)
    assert all(np.array_equal(sent[entry], state[entry]) for entry in others)

    judged = load_into(build(name), rows.only(state, own, np.array([True, True]))).eval()
    sizes = np.array([[3, 2], [4, 0], [0, 2]])
    everything = draw_by_class(generator.eval(), sizes, lambda c: c, lambda n: None)
    at_the_site = draw_by_class(judged, sizes * own[:, None], lambda c: c, lambda n: None)
    mine = own[everything.y.numpy()]
    np.testing.assert_array_equal(at_the_site.x.numpy(), everything.x.numpy()[mine])
    assert at_the_site.y.tolist() == everything.y[mine].tolist() == [0] * 5 + [2] * 2


def test_a_class_is_judged_on_two_hundred_samples_at_least():
    sizes = np.array([[3, 1], [0, 0], [500, 20]])
    raised = at_least(sizes)
    assert raised.tolist() == [[150, 50], [0, 0], [500, 20]]
    np.testing.assert_array_equal(at_least(raised), raised)
    assert at_least(np.array([[1, 1, 1]])).sum() >= 200


def test_classes_of_few_rows_or_few_patients_do_not_teach():
    y = np.repeat([0, 1, 2], [20, 19, 40])
    assert teaching_classes(Batch(np.zeros((79, 2)), y), 4, 20).tolist() == [True, False, True, False]
    units = np.where(y == 2, np.arange(79) // 4, np.arange(79))
    assert teaching_classes(Batch(np.zeros((79, 2)), y, None, units), 4, 20).tolist() == [True, False, False, False]


def test_weights_that_know_their_rows_are_told_class_by_class():
    rng = np.random.default_rng(0)
    rows = Batch(rng.normal(size=(260, 4)), np.repeat([0, 1, 2], [120, 120, 20]))
    others = Batch(rng.normal(size=(200, 4)), np.repeat([0, 1], 100))
    known = {row.tobytes() for row in rows.x[rows.y == 0]}
    asked = []

    def attack(x, y, d):
        asked.append(len(x))
        return np.array([float(row.tobytes() in known) for row in x]) + 0.1 * rng.normal(size=len(x))

    found = weight_leakage(attack, rows, others, 4, GateSettings(bootstrap=50), 0.01, 0)
    given_away, auc = found[:, MEASURED.index("given_away")], found[:, MEASURED.index("auc")]
    assert given_away[:2].tolist() == [1, 0]
    assert auc[0] > 0.9
    assert given_away[2] == 1, "no row to compare with: nothing was measured"
    assert np.isnan(found[2, 2:6]).all()
    assert np.isnan(found[3]).all(), "a class that did not teach"
    assert max(asked) <= 2 * MOST_ATTACKED

    lost = weight_leakage(lambda x, y, d: np.full(len(x), np.nan), rows, others, 4, GateSettings(), 0.01, 0)
    assert lost[0, -1] == 1, "scores that are not finite are no reason to let weights leave"
