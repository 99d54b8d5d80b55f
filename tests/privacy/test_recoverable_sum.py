"""Masked sums open without a missing client, from shares, and the single figures behind them do not."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.privacy.recoverable_sum import (
    NotOpened,
    can_recover,
    commitment,
    expand,
    least_sites,
    open_sum,
    opened_seeds,
    seeds_of,
)
from fedimb.privacy.secret_sharing import PRIME, RANDOM, SIZE, decode, element, join, split
from fedimb.privacy.secure_sum import mask_values


@settings(max_examples=10, deadline=None)
@given(st.integers(0, PRIME - 1), st.integers(1, 5), st.integers(0, 2), st.randoms(use_true_random=False))
def test_any_threshold_of_shares_is_the_secret_and_one_less_is_not(value, threshold, more, random):
    secret, holders = value.to_bytes(SIZE, "little"), range(threshold + more)
    shares = split(secret, threshold, holders, random.randbytes((threshold - 1) * RANDOM))
    for some in itertools.combinations(holders, threshold):
        assert join({holder: shares[holder] for holder in some}) == secret
    if threshold > 1:
        assert join({holder: shares[holder] for holder in list(holders)[: threshold - 1]}) != secret


def test_shares_are_uniform_whatever_they_hide():
    rng = np.random.default_rng(0)
    drawn = [split(bytes(SIZE), 2, range(1), rng.bytes(RANDOM))[0] for _ in range(4000)]
    high = np.bincount([one[-1] // 8 for one in drawn], minlength=16)  # the highest byte is below 128
    assert abs(high - 250).max() < 80


@pytest.mark.parametrize("wrong", [b"\xff" * 32, bytes(31), bytes(33)])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(ValueError, match="not an element of the field"):
        join({0: bytes(32), 1: wrong})


def test_two_sets_that_enough_clients_sign_share_an_honest_one():
    """With at most 2 least - n - 1 dishonest clients, who sign anything: so no honest client signs two sets."""
    for n in range(4, 40):
        least, dishonest = least_sites(n), 2 * least_sites(n) - n - 1
        assert can_recover(n)
        assert 2 * (least - dishonest) > n - dishonest
        assert dishonest >= n // 3 - 1
    assert not any(map(can_recover, range(4)))


class Everyone:
    """Clients with seeds of one request, as `fedimb.deploy.site.pairwise_masks` makes them."""

    def __init__(self, clients, values, seed=0):
        rng = np.random.default_rng(seed)
        self.clients, self.values, least = clients, values, least_sites(len(clients))
        own = {client: element(rng.bytes(RANDOM)) for client in clients}
        pairs = {pair: element(rng.bytes(RANDOM)) for pair in itertools.combinations(clients, 2)}
        self.seeds = {
            c: [own[c] if o == c else pairs[min(o, c), max(o, c)] for o in seeds_of(c, clients)] for c in clients
        }
        self.sent = {
            c: mask_values(values[c], c, clients, lambda low, high, n: expand(pairs[low, high], n))
            + expand(own[c], values[c].size)
            for c in clients
        }
        self.shares = {
            c: [split(one, least, clients, rng.bytes((least - 1) * RANDOM)) for one in self.seeds[c]] for c in clients
        }
        self.commitments = {
            c: np.frombuffer(b"".join(map(commitment, self.seeds[c])), np.uint8).reshape(-1, SIZE) for c in clients
        }

    def reveals(self, holder, alive):
        found = {}
        for client in alive:
            order = seeds_of(client, self.clients)
            places = [order.index(other) for other in opened_seeds(client, self.clients, alive)]
            rows = b"".join(self.shares[client][place][holder] for place in places)
            found[client] = np.frombuffer(rows, np.uint8).reshape(-1, SIZE)
        return found

    def opened(self, alive, holders):
        sent = {client: self.sent[client] for client in alive}
        revealed = {holder: self.reveals(holder, alive) for holder in holders}
        return open_sum(sent, self.clients, self.commitments, revealed)


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 8), st.data())
def test_the_sum_over_those_that_sent_is_exact(n, data):
    clients = sorted(data.draw(st.lists(st.integers(0, 40), min_size=n, max_size=n, unique=True)))
    values = {c: np.random.default_rng(c).integers(-(2**40), 2**40, size=3) for c in clients}
    everyone, least = Everyone(clients, values), least_sites(n)
    alive = sorted(data.draw(st.permutations(clients))[: data.draw(st.integers(least, n))])
    holders = data.draw(st.permutations(alive))[:least]
    assert everyone.opened(alive, holders).tolist() == sum(values[c] for c in alive).tolist()
    with pytest.raises(NotOpened):
        everyone.opened(alive, holders[1:])  # one share too few


def test_wrong_shares_of_a_few_holders_do_not_matter_and_of_too_many_are_seen():
    clients = list(range(7))
    everyone = Everyone(clients, {c: np.array([c, 1]) for c in clients})
    revealed = {holder: everyone.reveals(holder, clients) for holder in clients}
    for liar in (0, 3):
        revealed[liar] = {client: rows ^ 1 for client, rows in revealed[liar].items()}
    assert open_sum(everyone.sent, clients, everyone.commitments, revealed).tolist() == [21, 7]
    revealed[5] = {client: rows ^ 1 for client, rows in revealed[5].items()}
    with pytest.raises(NotOpened, match="client 0's seeds do not fit") as too_many:
        open_sum(everyone.sent, clients, everyone.commitments, revealed)
    assert not too_many.value.alone  # client 0 is as innocent as the others
    honest = {holder: everyone.reveals(holder, clients) for holder in clients}
    everyone.commitments[4] = everyone.commitments[4] ^ 1
    with pytest.raises(NotOpened, match="client 4's seeds do not fit") as its_own:
        open_sum(everyone.sent, clients, everyone.commitments, honest)
    assert its_own.value.alone


@pytest.mark.parametrize("liars", [(0,), (0, 1, 2), (4, 9, 15)])
def test_one_liar_among_many_sites_does_not_stop_a_sum(liars):
    """Of 16 sites 11 shares are needed, in 4,368 combinations: the first 3,003 have site 0."""
    clients = list(range(16))
    everyone = Everyone(clients, {c: np.array([c, 1]) for c in clients})
    revealed = {holder: everyone.reveals(holder, clients) for holder in clients}
    for liar in liars:
        revealed[liar] = {client: rows ^ 1 for client, rows in revealed[liar].items()}
    assert open_sum(everyone.sent, clients, everyone.commitments, revealed).tolist() == [120, 16]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 7), st.data())
def test_shares_of_which_few_are_wrong_are_decoded(threshold, more, data):
    secret, holders = data.draw(st.integers(0, PRIME - 1)).to_bytes(SIZE, "little"), list(range(threshold + more))
    shares = split(secret, threshold, holders, data.draw(st.randoms()).randbytes((threshold - 1) * RANDOM))
    wrong = data.draw(st.lists(st.sampled_from(holders), max_size=more // 2, unique=True))
    for holder in wrong:
        shares[holder] = data.draw(st.integers(0, PRIME - 1)).to_bytes(SIZE, "little")
    assert decode(shares, threshold) == secret


def test_who_is_said_to_be_missing_keeps_its_figures():
    """All masks between it and the others are revealed; its own is on what it sent, and is not."""
    clients = list(range(4))
    values = {c: np.full(2000, c) for c in clients}
    everyone = Everyone(clients, values)
    assert everyone.opened([0, 1, 2], [0, 1, 2]).tolist() == [3] * 2000
    rest = everyone.sent[3].copy()
    for low in range(3):
        rest += expand(everyone.seeds[3][seeds_of(3, clients).index(low)], 2000)
    assert (rest - expand(everyone.seeds[3][0], 2000)).tolist() == values[
        3
    ].tolist()  # its own mask is all that is left
    histogram = np.bincount((rest / 2.0**64 * 8).astype(int), minlength=8)
    assert abs(histogram - 250).max() < 80
