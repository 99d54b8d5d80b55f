import json
import math

import pytest
import torch

from fedimb.errors import ConfigError, DataError
from fedimb.generation.quality import agreement, copy_gate, copy_threshold, label_gate, nearest, quality_gate


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def column(values):
    return torch.tensor(values).double()[:, None]


class TestLabels:
    P = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.2, 0.8]])
    Y = torch.tensor([1, 1, 1, 1, 0])

    def test_half_the_probability_is_enough_and_less_is_not(self):
        assert label_gate(self.P, self.Y).tolist() == [True, False, False, False, False]

    def test_of_a_rare_class_the_best_pass_besides(self):
        assert label_gate(self.P, self.Y, rare=[1]).tolist() == [True, True, False, True, False]  # 3 of 4, rounded up
        assert label_gate(self.P, self.Y, rare=[0, 1], rare_share=1.0).all()
        assert label_gate(self.P, self.Y, rare=[1], rare_share=0.0).tolist() == [True] + [False] * 4

    def test_of_ten_rare_ones_seven_pass_not_eight(self):
        p = torch.full((10, 2), 0.25)
        assert label_gate(p, torch.zeros(10, dtype=torch.int64), rare=[0]).tolist() == [True] * 7 + [False] * 3

    def test_nan_never_passes_not_even_as_the_best_of_its_class(self):
        p = torch.tensor([[math.nan, math.nan], [0.9, 0.1]])
        assert label_gate(p, torch.tensor([1, 1]), rare=[1]).tolist() == [False, True]

    def test_nothing_to_gate(self):
        assert label_gate(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), rare=[0]).tolist() == []

    def test_wrong_shares_and_shapes_are_refused(self):
        with pytest.raises(ConfigError, match="least"):
            label_gate(self.P, self.Y, least=2)
        with pytest.raises(DataError, match="probabilities"):
            label_gate(self.P, self.Y[:2])
        with pytest.raises(DataError, match="labels must lie"):
            label_gate(self.P, self.Y + 1)


class TestCopies:
    def test_nearest_is_the_smallest_distance(self):
        rows, others = torch.rand(70, 3, generator=seeded()), torch.rand(50, 3, generator=seeded(1))
        expected = [min(math.dist(a, b) for b in others.tolist()) for a in rows.tolist()]
        assert torch.allclose(nearest(rows, others), torch.tensor(expected).double())
        assert nearest(rows, others[:0]).isinf().all()
        assert (nearest(rows, rows) == 0).all()
        assert (nearest(rows, rows, same=True) > 0).all()

    def test_rows_beyond_a_chunk_are_not_compared_with_themselves(self):
        rows = torch.arange(1500).double()[:, None]
        assert (nearest(rows, rows, same=True) == 1).all()

    def test_threshold_is_the_quantile_of_a_class_s_own_distances(self):
        real = column([0.0, 1.0, 2.0, 100.0, 110.0])
        y = torch.tensor([0, 0, 0, 1, 1])
        assert copy_threshold(real, y, 3, 0.05).tolist() == [1.0, 10.0, 1.0]  # class 2 has none: over all
        assert copy_threshold(real[:1], y[:1], 2).tolist() == [0.0, 0.0]

    def test_copies_and_near_copies_of_any_class_are_dropped(self):
        real, y = column([0.0, 2.0, 4.0, 100.0, 110.0]), torch.tensor([0, 0, 0, 1, 1])
        made = column([0.0, 1.0, 6.1, 7.0, 101.0, 120.5])
        # Threshold 2 for class 0 and 10 for class 1; the third is 2.1 away, the last 10.5.
        made_y = torch.tensor([0, 0, 0, 1, 0, 1])
        assert copy_gate(made, made_y, real, y, 2).tolist() == [False, False, True, False, False, True]

    def test_where_real_rows_repeat_only_exact_copies_are_dropped(self):
        real, y = column([1.0, 1.0, 1.0]), torch.zeros(3, dtype=torch.int64)
        assert copy_gate(column([1.0, 1.001]), torch.tensor([0, 0]), real, y, 1).tolist() == [False, True]

    def test_real_rows_pass_it_in_19_of_20_cases(self):
        x = torch.randn(2000, 2, generator=seeded())
        y = torch.zeros(2000, dtype=torch.int64)
        passed = copy_gate(x[1000:], y[1000:], x[:1000], y[:1000], 1).double().mean()
        assert 0.92 < passed < 0.98

    def test_features_of_another_width_are_refused(self):
        with pytest.raises(DataError, match="features"):
            copy_gate(torch.rand(2, 3), torch.zeros(2).long(), torch.rand(2, 4), torch.zeros(2).long(), 1)


def test_the_gate_counts_each_dropped_sample_once_by_reason_and_class():
    real, real_y = column([0.0, 10.0, 50.0, 60.0]), torch.tensor([0, 0, 1, 1])
    made = column([30.0, 30.0, 0.1, math.nan, 90.0, 0.2])
    made_y = torch.tensor([0, 1, 0, 1, 1, 1])
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    found = quality_gate(p, made, made_y, real, real_y)
    assert found.keep.tolist() == [True, False, False, False, True, False]
    report = json.loads(json.dumps(found.report()))
    assert report == {"kept": 2, "of": 6, "dropped": {"not_finite": [0, 1], "label": [0, 2], "copy": [1, 0]}}


def test_a_broken_sample_takes_no_place_among_the_best_of_a_rare_class():
    p = torch.tensor([[0.3, 0.7]] * 2 + [[math.nan, math.nan]] * 8)
    made, y = column([5.0, 6.0] + [math.nan] * 8), torch.zeros(10, dtype=torch.int64)
    found = quality_gate(p, made, y, column([100.0, 101.0]), torch.zeros(2, dtype=torch.int64), rare=[0])
    assert found.keep.tolist() == [True, True] + [False] * 8
    assert found.dropped["not_finite"].tolist() == [8, 0]


class TestAgreement:
    def test_shares_overall_and_by_class(self):
        y = torch.tensor([0, 0, 0, 0, 1])
        found = agreement(torch.tensor([0, 0, 0, 0, 0]), y, 3)
        assert found.overall == 0.8
        assert found.verdict == "sound"
        assert found.per_class[:2] == (1.0, 0.0)
        assert math.isnan(found.per_class[2])

    def test_below_the_bar_and_undefined_are_inconclusive(self):
        assert agreement(torch.tensor([0, 1]), torch.tensor([0, 0]), 2).verdict == "inconclusive"
        none = agreement(torch.zeros(0).long(), torch.zeros(0).long(), 2)
        assert math.isnan(none.overall)
        assert none.verdict == "inconclusive"

    def test_predictions_of_another_set_are_refused(self):
        with pytest.raises(DataError, match="one prediction per sample"):
            agreement(torch.zeros(3).long(), torch.zeros(2).long(), 2)
