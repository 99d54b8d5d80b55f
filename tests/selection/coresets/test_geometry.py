"""The rules that look at where rows lie: herding, k-centre, FedCS, FedCore, MMD, the prototype curator."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.selection.coresets.base import Candidates
from fedimb.selection.coresets.fedcore import FedCore, gradient_distances
from fedimb.selection.coresets.fedcs import FedCS, distance_contrast
from fedimb.selection.coresets.herding import Herding
from fedimb.selection.coresets.k_center import KCenter
from fedimb.selection.coresets.mmd_greedy import MMDGreedy, median_bandwidth, mmd_greedy
from fedimb.selection.coresets.prototype_curator import TAIL, PrototypeCurator, zones
from fedimb.selection.coresets.random import Random


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(normal(*shape, seed=seed), dim=1)


LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
GIVEN = Candidates(
    LABELS, 3, generator(), unit(100, 8), normal(100, 5, seed=1), normal(100, 3, seed=2), centres=normal(3, 5, seed=3)
)


def test_herding_keeps_the_class_mean_better_than_chance():
    kept = Herding().select(GIVEN, 30)
    assert torch.bincount(LABELS[kept]).tolist() == [18, 9, 3]
    for c in range(3):
        points = GIVEN.features[GIVEN.rows_of(c)]
        mine = GIVEN.features[kept[LABELS[kept] == c]]
        by_chance = [
            (points[torch.randperm(len(points), generator=generator(s))[: len(mine)]].mean(0) - points.mean(0)).norm()
            for s in range(20)
        ]
        assert (mine.mean(0) - points.mean(0)).norm() < 0.6 * float(np.mean(by_chance))


def test_k_center_leaves_no_row_as_far_from_a_kept_one_as_chance_does():
    def radius(kept):
        return torch.cdist(GIVEN.features, GIVEN.features[kept]).amin(1).max()

    chance = np.mean([float(radius(Random().select(replace(GIVEN, generator=generator(s)), 15))) for s in range(20)])
    assert float(radius(KCenter().select(GIVEN, 15))) < 0.8 * chance


def test_distance_contrast_agrees_with_loops_and_is_nothing_without_centres():
    z, g = GIVEN.features.double().numpy(), GIVEN.centres.double().numpy()
    wanted = [
        min(np.linalg.norm(z[i] - g[j]) for j in range(3) if j != c) - np.linalg.norm(z[i] - g[c])
        for i, c in enumerate(LABELS.tolist())
    ]
    assert np.allclose(distance_contrast(GIVEN.features, LABELS, GIVEN.centres), wanted, atol=1e-6)
    missing = GIVEN.centres.clone()
    missing[1] = torch.nan
    contrast = distance_contrast(GIVEN.features, LABELS, missing)
    assert not contrast[LABELS == 1].any()
    pair = [np.linalg.norm(z[i] - g[2]) - np.linalg.norm(z[i] - g[0]) for i in range(60)]
    assert np.allclose(contrast[:60], pair, atol=1e-6)
    missing[:] = torch.nan
    missing[0] = 0
    assert not distance_contrast(GIVEN.features, LABELS, missing).any()


def test_fedcs_prunes_frequent_classes_first_then_over_all():
    contrast = distance_contrast(GIVEN.features, LABELS, GIVEN.centres).abs().numpy()
    kept = FedCS(beta=0.5, p_l=0.1).select(GIVEN, 63)
    # 63 = 70 - 10 % of 70. Stage 1: 30 of classes 0 and 1, free since (60 - 30) / 60 <= .5, in proportion to 59 and 29
    left = [np.flatnonzero(LABELS.numpy() == c) for c in range(3)]
    order = [rows[np.argsort(contrast[rows])] for rows in left]
    after = np.concatenate([order[0][:40], order[1][:20], order[2]])
    wanted = after[np.argsort(contrast[after])][:63]
    assert kept.tolist() == sorted(wanted.tolist())


def test_fedcs_by_numbers_per_class_keeps_the_smallest_contrast():
    contrast = distance_contrast(GIVEN.features, LABELS, GIVEN.centres).abs()
    kept = FedCS().select(GIVEN, 20, torch.tensor([5, 5, 10]))
    assert contrast[kept[LABELS[kept] == 0]].max() <= contrast[:60].sort().values[4]


def test_fedcs_never_loses_a_class_it_can_keep():
    far = GIVEN.features.clone()
    far[-10:] += 50  # with its centre: the rare class has the largest contrast by far
    centres = GIVEN.centres + torch.tensor([[0.0], [0.0], [50.0]])
    kept = FedCS(p_l=0.5).select(replace(GIVEN, features=far, centres=centres), 40)
    assert set(LABELS[kept].tolist()) == {0, 1, 2}


def test_gradient_distances_are_those_between_gradients_laid_out():
    residual, features = GIVEN.logits.softmax(1) - torch.nn.functional.one_hot(LABELS, 3), GIVEN.features
    padded = torch.cat([features, torch.ones(100, 1)], dim=1)
    gradients = (residual[:, :, None] * padded[:, None, :]).flatten(1).double()
    assert torch.allclose(gradient_distances(residual, features), torch.cdist(gradients, gradients), atol=1e-5)


def test_fedcore_leaves_less_distance_to_its_rows_than_chance():
    residual = GIVEN.logits.softmax(1) - torch.nn.functional.one_hot(LABELS, 3)
    between = gradient_distances(residual, GIVEN.features)

    def loss(kept):
        return sum(float(between[GIVEN.rows_of(c)][:, kept[LABELS[kept] == c]].amin(1).sum()) for c in range(3))

    kept = FedCore().select(GIVEN, 20)
    sizes = torch.bincount(LABELS[kept])
    by_chance = [loss(Random().select(replace(GIVEN, generator=generator(s)), 20, sizes)) for s in range(20)]
    assert loss(kept) < min(by_chance)
    cut = FedCore(most_rows=16).select(GIVEN, 20)  # in parts: worse than whole, still better than chance
    assert torch.bincount(LABELS[cut]).tolist() == sizes.tolist()
    assert loss(kept) <= loss(cut) < np.mean(by_chance)


def test_mmd_takes_at_each_step_the_row_that_lowers_it_most():
    points = unit(25, 4)
    bandwidth = median_bandwidth(points, generator())
    assert bandwidth == pytest.approx(float(torch.pdist(points).square().sort().values[(25 * 24 // 2 - 1) // 2]), 1e-4)
    kernel = torch.exp(-torch.cdist(points, points).double().square() / (2 * bandwidth)).numpy()

    def mmd(rows):
        return kernel[np.ix_(rows, rows)].mean() - 2 * kernel[rows].mean() + kernel.mean()

    found = mmd_greedy(points, 8, bandwidth).tolist()
    for t in range(8):
        others = [i for i in range(25) if i not in found[:t]]
        best = min(mmd([*found[:t], i]) for i in others)
        assert mmd(found[: t + 1]) == pytest.approx(best, abs=1e-6)


def test_mmd_of_rows_that_are_all_alike_has_a_bandwidth():
    assert median_bandwidth(torch.ones(5, 2), generator()) == 1
    assert median_bandwidth(torch.ones(1, 2), generator()) == 1
    assert torch.bincount(LABELS[MMDGreedy().select(GIVEN, 30)]).tolist() == [18, 9, 3]


def test_zones_are_cut_at_one_two_and_three_deviations():
    distance = torch.cat([torch.ones(95), torch.tensor([2.0, 3.0, 4.0, 6.0, 9.0])])
    points = torch.stack([distance, torch.zeros(100)], dim=1)
    zone, beyond = zones(points, torch.zeros(1, 2), torch.zeros(100, dtype=torch.int64))
    z = (distance.double() - distance.double().mean()) / distance.double().std(correction=0)
    assert torch.allclose(beyond, z)
    assert zone.tolist() == [int(v > 1) + int(v >= 2) + int(v >= 3) for v in z.tolist()]
    alike, _ = zones(torch.ones(5, 2), torch.zeros(1, 2), torch.zeros(5, dtype=torch.int64))
    assert not alike.any()


def test_the_curator_keeps_the_tail_and_takes_outliers_last():
    centre, points = torch.tensor([1.0, 0, 0, 0]), normal(300, 4, seed=5) * 0.05
    points[:6] *= 1.6
    points[6] = torch.tensor([0, 0.6, 0, 0])  # an outlier
    rows = Candidates(
        torch.zeros(300, dtype=torch.int64), 1, generator(), torch.nn.functional.normalize(centre + points, dim=1)
    )
    middle = rows.embeddings.mean(0, keepdim=True)
    zone, _ = zones(rows.embeddings, middle, torch.zeros(300, dtype=torch.int64))
    tail = torch.nonzero(zone == TAIL).flatten()
    assert len(tail) > 2
    kept = PrototypeCurator(prototypes=1).select(rows, 60)
    assert torch.isin(tail, kept).all()
    assert not torch.isin(torch.nonzero(zone > TAIL).flatten(), kept).any()
    usual = int((zone <= TAIL).sum())
    assert torch.equal(PrototypeCurator(prototypes=1).select(rows, usual), torch.nonzero(zone <= TAIL).flatten())
    few = PrototypeCurator(prototypes=1).select(rows, len(tail) - 1)
    assert torch.isin(few, tail).all()


def test_settings_out_of_range():
    for make in (lambda: FedCore(passes=0), lambda: FedCS(p_l=1.0), lambda: PrototypeCurator(prototypes=0)):
        with pytest.raises(ConfigError, match="give"):
            make()
