import numpy as np
import pytest
import torch
from beside import measured
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError, DataError
from fedimb.selection.moments import class_moments, pool, suppress
from fedimb.selection.profile import Profile, global_profile, z_scores
from fedimb.selection.projections import project
from fedimb.selection.scope import prune


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def client(counts, seed=0):
    """Random scores [n, 3] and labels in random order."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=generator(seed))]
    return torch.rand(len(y), 3, generator=generator(seed + 1), dtype=torch.float64), y


def profile_of(*clients, classes):
    return global_profile(pool([class_moments(s, y, classes) for s, y in clients]))


def kept_counts(found, y, classes):
    return torch.bincount(y[found.kept], minlength=classes).tolist()


ONE, TWO = client([40, 20, 6, 0], 0), client([10, 30, 2, 3], 7)
PROFILE = profile_of(ONE, TWO, classes=4)


def test_a_score_that_does_not_vary_in_the_federation_says_nothing():
    """Through a float32 message the mean of one row differs from the row by more than the 1e-8 of the denominator."""
    scores, y = client([5, 1])
    profile = profile_of((scores, y), classes=2)
    sent = Profile(profile.counts, *(a.astype(np.float32) for a in (profile.mean, profile.std, profile.rarity)))
    assert np.abs(sent.mean - profile.mean).max() > 1e-9
    assert not z_scores(scores, y, sent)[y == 1].any()
    assert z_scores(scores, y, sent)[y == 0].abs().min() > 0
    assert prune(scores, y, sent, p_f=0.5).kept.numel() > 0


def test_the_gate_counts_rows_after_stage_one():
    """30 rows of each class and equal rarity: only what stage 1 took from class 0 closes its gate."""
    y = torch.tensor([0] * 30 + [1] * 30)
    scores = torch.rand(60, 3, generator=generator(), dtype=torch.float64)
    profile = profile_of((scores, y), classes=2)
    scores[:20, 2] += 100
    found = prune(scores, y, profile, p_f=0.5, p_l=1 / 3, beta=0.5)
    assert found.anomalous.tolist() == list(range(20))
    assert found.classes.tolist() == [1]
    assert len(found.redundant) == 15


@pytest.mark.slow
@pytest.mark.alone
def test_fifty_thousand_rows_take_under_seventeen_units_of_the_yardstick():
    points = torch.nn.functional.normalize(torch.randn(50_000, 256, generator=generator()), dim=1)
    vectors = torch.nn.functional.normalize(torch.randn(10, 256, generator=generator(1)), dim=1)
    y = torch.randint(10, (50_000,), generator=generator(2))
    with measured() as units:
        scores = project(points, y, vectors)
        assert prune(scores, y, profile_of((scores, y), classes=10), p_f=0.5).kept.numel() > 20_000
    assert float(units) < 17


def test_both_stages_drop_the_rows_that_plain_loops_drop():
    scores, y = ONE
    z = z_scores(scores, y, PROFILE).numpy()
    found = prune(scores, y, PROFILE, p_f=0.5, p_l=0.1)
    labels, left = y.tolist(), list(range(66))
    by_as = sorted(left, key=lambda i: -(z[i][2] - z[i][0]))
    first = sorted(by_as[:6])
    left = [i for i in left if i not in first]
    sizes = [sum(labels[i] == c for i in left) for c in range(4)]
    over = [n / len(left) / w for n, w in zip(sizes, PROFILE.rarity, strict=True)]
    free = [c for c in range(4) if 1 - over[c] / max(over) <= 0.5]
    second = []
    for c in free:
        rows = sorted((i for i in left if labels[i] == c), key=lambda i: -(z[i][0] - z[i][2] - z[i][1]))
        second += rows[: sizes[c] // 2]
    assert found.anomalous.tolist() == first
    assert found.classes.tolist() == free
    assert found.redundant.tolist() == sorted(second)
    assert sorted([*found.kept.tolist(), *first, *second]) == list(range(66))


@pytest.mark.parametrize("choice", ["scope", "random", "score_only", "undersample"])
def test_with_both_shares_zero_everything_stays(choice):
    for scores, y in (ONE, TWO):
        found = prune(scores, y, PROFILE, p_f=0, p_l=0, choice=choice, generator=generator())
        assert found.kept.tolist() == list(range(len(y)))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=2, max_size=5),
    others=st.lists(st.integers(0, 40), min_size=5, max_size=5),
    p_f=st.floats(0, 1),
    p_l=st.floats(0, 1),
    beta=st.floats(0, 1),
    choice=st.sampled_from(["scope", "random", "score_only", "undersample"]),
    variant=st.sampled_from(["full", "no_global_profile", "no_anomaly", "no_redundancy", "no_diversity"]),
    gate=st.sampled_from(["relative", "literal"]),
)
def test_a_class_keeps_a_row_and_a_client_two_whatever_is_asked(counts, others, p_f, p_l, beta, choice, variant, gate):
    classes = len(counts)
    scores, y = client(counts)
    rest = client(others[:classes], 3)
    if sum(counts) + len(rest[1]) == 0:
        return
    profile = profile_of((scores, y), rest, classes=classes)
    settings_ = {"p_f": p_f, "p_l": p_l, "beta": beta, "choice": choice, "variant": variant, "gate": gate}
    found = prune(scores, y, profile, generator=generator(), **settings_)
    after = kept_counts(found, y, classes)
    assert all((now > 0) == (before > 0) for now, before in zip(after, counts, strict=True))
    assert len(found.kept) >= min(2, sum(counts))
    parts = torch.cat([found.kept, found.anomalous, found.redundant])
    assert parts.sort().values.tolist() == list(range(len(y)))
    again = prune(scores, y, profile, generator=generator(), **settings_)
    assert torch.equal(found.kept, again.kept)


def test_classes_left_out_of_the_profile_are_compared_with_nothing_and_not_pruned():
    whole = [class_moments(s, y, 4) for s, y in (ONE, TWO)]
    profile = global_profile(pool([suppress(m, 5) for m in whole]))
    assert profile.counts.tolist() == [50, 50, 6, 0]
    assert np.isnan(profile.rarity[3])
    scores, y = TWO
    assert not z_scores(scores, y, profile)[y == 3].any()
    found = prune(scores, y, profile, p_f=0.9, p_l=0, choice="score_only")
    assert found.classes.tolist() == [0, 1, 2]
    only = torch.nonzero(y == 3).flatten()
    alone = prune(scores[only], y[only], profile, p_f=0.9, p_l=0)
    assert alone.kept.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="lower min_count"):
        global_profile(pool([suppress(m, 1000) for m in whole]))


def test_classes_without_scores_are_not_pruned_for_redundancy():
    vectors = torch.eye(3)
    vectors[0] = torch.nan
    points = torch.nn.functional.normalize(torch.rand(30, 3, generator=generator()), dim=1)
    y = torch.tensor([0] * 20 + [1] * 9 + [2])
    scores = project(points, y, vectors)
    found = prune(scores, y, profile_of((scores, y), classes=3), p_f=0.9, p_l=0, beta=1)
    assert found.classes.tolist() == [1]
    assert kept_counts(found, y, 3) == [20, 1, 1]


def test_ties_go_by_position():
    y = torch.tensor([0] * 10 + [1])
    scores = torch.full((11, 3), 0.5, dtype=torch.float64)
    found = prune(scores, y, profile_of((scores, y), classes=2), p_f=0.5, p_l=0.2)
    assert found.anomalous.tolist() == [0, 1]
    assert found.redundant.tolist() == [2, 3, 4, 5]


def test_random_keeps_scopes_counts_and_undersampling_its_total():
    scores, y = ONE
    scope = prune(scores, y, PROFILE, p_f=0.7)
    chance = prune(scores, y, PROFILE, p_f=0.7, choice="random", generator=generator())
    head = prune(scores, y, PROFILE, p_f=0.7, choice="undersample", generator=generator())
    assert kept_counts(chance, y, 4) == kept_counts(scope, y, 4)
    assert torch.equal(chance.anomalous, scope.anomalous)
    assert not torch.equal(chance.kept, scope.kept)
    assert len(head.kept) == len(scope.kept)
    assert kept_counts(head, y, 4)[2] == 6  # the rare class is whole
    with pytest.raises(ConfigError, match="generator"):
        prune(scores, y, PROFILE, p_f=0.7, choice="random")


def test_variants_switch_one_thing_off():
    scores, y = ONE
    full, by = prune(scores, y, PROFILE, p_f=0.5), lambda v: prune(scores, y, PROFILE, p_f=0.5, variant=v)
    assert by("no_anomaly").anomalous.numel() == 0
    assert torch.equal(by("no_redundancy").anomalous, full.anomalous)
    assert by("no_redundancy").redundant.numel() == 0
    assert len(by("no_diversity").kept) == len(full.kept)
    own = prune(scores, y, profile_of(ONE, classes=4), p_f=0.5)
    assert torch.equal(by("no_global_profile").kept, own.kept)
    assert not torch.equal(own.kept, full.kept)


def test_with_every_share_at_one_a_row_of_each_class_is_left():
    for choice in ("scope", "random", "score_only", "undersample"):
        found = prune(*ONE, PROFILE, p_f=1, p_l=0, beta=1, choice=choice, generator=generator())
        assert kept_counts(found, ONE[1], 4) == [1, 1, 1, 0]


def test_without_diversity_redundancy_is_typical_and_far_from_others():
    scores, y = ONE
    z = z_scores(scores, y, PROFILE)
    found = prune(scores, y, PROFILE, p_f=0.5, p_l=0, variant="no_diversity")
    for c in found.classes.tolist():
        rows = torch.nonzero(y == c).flatten()
        order = rows[torch.argsort(z[rows, 0] - z[rows, 2], descending=True)]
        dropped = found.redundant[y[found.redundant] == c]
        assert dropped.tolist() == order[: len(rows) // 2].sort().values.tolist()
    assert not torch.equal(found.redundant, prune(scores, y, PROFILE, p_f=0.5, p_l=0).redundant)


def test_rows_with_another_classs_label_stand_out_as_anomalies():
    """A toy encoder: class means plus noise, class vectors the means; 10 % of the labels drawn again."""
    means = torch.nn.functional.normalize(torch.randn(8, 32, generator=generator(1)), dim=1)
    truth = torch.arange(8).repeat_interleave(200)
    points = torch.nn.functional.normalize(means[truth] + 0.15 * torch.randn(1600, 32, generator=generator(2)), dim=1)
    wrong = torch.randperm(1600, generator=generator(3))[:160]
    y = truth.clone()
    y[wrong] = (y[wrong] + torch.randint(1, 8, (160,), generator=generator(4))) % 8
    scores = project(points, y, means)
    found = prune(scores, y, profile_of((scores, y), classes=8), p_f=0, p_l=0.1)
    caught = torch.isin(found.anomalous, wrong).double().mean()
    assert caught > 0.9


def test_bad_settings_are_named():
    scores, y = ONE
    with pytest.raises(ConfigError, match=r"p_f=1\.5"):
        prune(scores, y, PROFILE, p_f=1.5)
    with pytest.raises(ConfigError, match=r"no variant 'no_anomalies'\. Did you mean 'no_anomaly'"):
        prune(scores, y, PROFILE, p_f=0.5, variant="no_anomalies")
    with pytest.raises(DataError, match="labels run"):
        prune(scores, y + 9, PROFILE, p_f=0.5)


def test_no_rows_and_one_row():
    none = prune(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), PROFILE, p_f=0.5)
    assert none.kept.numel() == 0
    one = prune(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), PROFILE, p_f=1, p_l=1)
    assert one.kept.tolist() == [0]
