"""Samples at a site before they leave: a generator that copies is refused, whatever it calls itself."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.generation.examples import Examples
from fedimb.generation.export import (
    MembershipAttack,
    SampleAuditor,
    apply_export_gate,
    encoder_features,
    split_holdout,
)
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.training import Training
from fedimb.generation.transport import concatenate_samples, from_record, to_record
from fedimb.privacy.audit.types import GateSettings


def rows_of(n, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(n, 6)).astype(np.float32))
    return x, torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)


def test_a_generator_trained_to_copy_five_records_is_refused():
    x, y, d = rows_of(200)
    rows = split_holdout(x, y, d, None, 0.5, seed=1)
    five = Examples(torch.from_numpy(rows.learned.x[:5]), y[:5], d[:5])
    config = GeneratorConfig(
        {"name": "table_flow", "width": 64, "depth": 2}, Training(steps=600), 1, 1, (6,), ("a",), 3
    )
    cache = GeneratorCache(config, five)
    samples = Examples(cache.samples(y[:150], d[:150], 4), y[:150], d[:150])
    near, far = (torch.cdist(one, five.x).amin(1).median() for one in (samples.x, x[5:]))
    assert float(near) < 0.5 * float(far)  # it learned them by heart
    judged = SampleAuditor(rows, cache.generator, np.array([3]))
    outcome, found = apply_export_gate(samples, judged, GateSettings(), "enforce", None, {}, 1, 5)
    assert len(outcome.samples.y) == 0
    assert outcome.verdicts.tolist() == [0]
    assert found is not None
    assert found.verdicts[0].state == "fail"


def test_fresh_samples_of_the_same_source_leave():
    x, y, d = rows_of(600)
    rows = split_holdout(x, y, d, None, 0.5, seed=1)
    fresh = Examples(*rows_of(150, seed=9))
    outcome, found = apply_export_gate(
        fresh, SampleAuditor(rows, None, np.array([3])), GateSettings(), "enforce", None, {}, 1, 5
    )
    assert found is not None
    assert found.verdicts[0].state == "pass", found.verdicts[0]
    assert len(outcome.samples.y) == 150


def test_parts_keep_a_patient_whole_and_each_class_on_both_sides():
    x, _, d = rows_of(60)
    y = torch.arange(60) % 2
    units = np.arange(60) // 4
    rows = split_holdout(x, y, d, units, 0.5, seed=2)
    assert not set(rows.learned.units) & set(rows.kept.units)
    assert set(rows.learned.y) == set(rows.kept.y) == {0, 1}
    assert len(rows.learned) + len(rows.kept) == 60


def test_the_attack_asks_every_record_alike():
    x, y, d = rows_of(30)
    config = GeneratorConfig({"name": "table_flow", "width": 16, "depth": 1}, Training(steps=5), 1, 1, (6,), ("a",), 3)
    asking = MembershipAttack(GeneratorCache(config, Examples(x, y, d)).generator, seed=7)
    whole = asking(x.numpy(), y.numpy(), d.numpy())
    assert whole.shape == (30,)
    np.testing.assert_array_equal(whole, asking(x.numpy(), y.numpy(), d.numpy()))


def test_images_travel_in_bytes_and_tables_as_they_are():
    images = Examples(torch.rand(4, 3, 5, 5), torch.arange(4), torch.zeros(4, dtype=torch.int64))
    record = to_record(images)
    assert record["x"].dtype == "uint8"
    back = from_record(record)
    assert float((back.x - images.x).abs().max()) <= 0.5 / 255 + 1e-6
    assert back.y.tolist() == [0, 1, 2, 3]
    table = Examples(torch.randn(4, 6), torch.arange(4), torch.zeros(4, dtype=torch.int64))
    assert torch.equal(from_record(to_record(table)).x, table.x)
    assert len(concatenate_samples([table, table]).y) == 8


class Digits:
    """What an encoder is told of a store."""

    input_shape, y = (8, 8), np.zeros(3, np.int64)

    def __len__(self):
        return 3


def test_the_gate_can_measure_in_an_encoders_space_and_refuses_one_that_knows_only_rows():
    store = Digits()
    features = encoder_features({"name": "random_conv"}, store)
    assert encoder_features({}, store) is None
    assert features(np.zeros((3, *store.input_shape), np.float32)).shape[0] == 3
    with pytest.raises(ConfigError, match=r"'global_features' cannot embed a sample"):
        encoder_features({"name": "global_features"}, store)
