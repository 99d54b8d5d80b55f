import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError
from fedimb.selection.moments import Moments, class_moments, pool
from fedimb.selection.profile import Profile, global_profile, prunable, z_scores


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def client(counts, seed=0):
    """Random scores [n, 3] and labels in random order."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=generator(seed))]
    return torch.rand(len(y), 3, generator=generator(seed + 1), dtype=torch.float64), y


def profile_of(*clients, classes):
    return global_profile(pool([class_moments(s, y, classes) for s, y in clients]))


ONE, TWO = client([40, 20, 6, 0], 0), client([10, 30, 2, 3], 7)
PROFILE = profile_of(ONE, TWO, classes=4)


def test_the_profile_is_that_of_all_rows():
    scores, y = torch.cat([ONE[0], TWO[0]]).numpy(), torch.cat([ONE[1], TWO[1]]).numpy()
    for c, n in enumerate([50, 50, 8, 3]):
        assert PROFILE.counts[c] == n
        assert np.allclose(PROFILE.mean[c], scores[y == c].mean(0), atol=1e-12)
        assert np.allclose(PROFILE.std[c], scores[y == c].std(0), atol=1e-12)
    inverse = 1 / (np.array([50, 50, 8, 3]) / 111 + 1e-6)
    assert np.allclose(PROFILE.rarity, 4 * inverse / inverse.sum())


def test_z_scores_of_all_rows_have_mean_zero_and_deviation_one():
    scores, y = torch.cat([ONE[0], TWO[0]]), torch.cat([ONE[1], TWO[1]])
    z = z_scores(scores, y, PROFILE)
    for c in range(4):
        assert torch.allclose(z[y == c].mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-6)
        assert torch.allclose(z[y == c].std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6)


def test_gamma_sharpens_rarity():
    moments = Moments(np.array([60.0, 30, 10]), *np.ones((2, 3, 3)), np.zeros(0, np.int64))
    flat, square = (global_profile(moments, gamma=gamma).rarity for gamma in (0.0, 2.0))
    assert flat.tolist() == [1, 1, 1]
    assert square[2] / square[0] == pytest.approx(36, rel=1e-4)
    with pytest.raises(ConfigError, match="gamma=-1"):
        global_profile(moments, gamma=-1)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=3, max_size=6),
    glob=st.lists(st.integers(1, 500), min_size=6, max_size=6),
    beta=st.floats(0, 1),
    gate=st.sampled_from(["relative", "literal"]),
)
def test_the_globally_rarest_class_is_never_free_to_prune(counts, glob, beta, gate):
    sizes = np.array(glob[: len(counts)], float)
    profile = global_profile(Moments(sizes, *np.ones((2, len(sizes), 3)), np.zeros(0, np.int64)))
    free = prunable(torch.tensor(counts), profile, beta, gate)
    if sizes.min() < sizes.max():
        assert not free[torch.from_numpy(sizes == sizes.min())].any()
    if gate == "relative" and beta == 1 and sizes.min() < sizes.max():
        assert free[torch.from_numpy(sizes > sizes.min()) & (torch.tensor(counts) > 0)].all()


def test_the_literal_gate_compares_with_rarity_summing_to_one():
    profile = global_profile(Moments(np.array([60.0, 30, 10]), *np.ones((2, 3, 3)), np.zeros(0, np.int64)), eps=1e-12)
    # W in proportion to 1/.6, 1/.3, 1/.1, summing to 1: .1111, .2222, .6667; f = .5, .4, .1: T = 4.5, 1.8, .15
    counts = torch.tensor([50, 40, 10])
    assert prunable(counts, profile, 0.5, "literal").tolist() == [True, True, False]
    assert prunable(counts, profile, 0.5, "relative").tolist() == [True, False, False]
    assert prunable(counts, profile, 0.61, "relative").tolist() == [True, True, False]


def test_a_profile_out_of_a_message_may_be_read_only():
    sent = Profile(*(a.copy() for a in (PROFILE.counts, PROFILE.mean, PROFILE.std, PROFILE.rarity)))
    for array in (sent.counts, sent.mean, sent.std, sent.rarity):
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(z_scores(*ONE, sent), z_scores(*ONE, PROFILE))
        assert torch.equal(
            prunable(torch.tensor([40, 20, 6, 0]), sent), prunable(torch.tensor([40, 20, 6, 0]), PROFILE)
        )
