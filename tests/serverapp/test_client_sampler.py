import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.partitioners.virtual import Virtual
from fedimb.data.virtual_federation import VirtualSizes
from fedimb.errors import ConfigError, DataError
from fedimb.schema import ClientsConfig
from fedimb.seeds import Stream, numpy_rng
from fedimb.serverapp.client_sampler import DENSE, ClientSampler

few = settings(max_examples=60, deadline=None)
sizes = st.lists(st.integers(0, 3), min_size=1, max_size=30).filter(any)


def config(count=20, **changes):
    base = {
        "count": count,
        "participation": 1.0,
        "availability": 1.0,
        "dropout": 0.0,
        "slow": 0.0,
        "slow_delay_s": 0.0,
        "deadline_s": None,
        "min_reply_fraction": 0.5,
    }
    return ClientsConfig(**(base | changes))


def client_sampler(count=20, seed=0, rows=None, **changes):
    return ClientSampler(config(count, **changes), seed, np.full(count, 5) if rows is None else np.asarray(rows))


@few
@given(sizes, st.floats(0.05, 1), st.integers(0, 99), st.integers(1, 50))
def test_a_cohort_is_sorted_unique_holds_data_and_repeats_by_seed_and_round(rows, participation, seed, server_round):
    made = [
        client_sampler(len(rows), seed, rows, participation=participation, availability=0.8, dropout=0.2).cohort(
            server_round
        )
        for _ in range(2)
    ]
    assert made[0] == made[1]
    asked = made[0].asked
    assert asked == sorted(set(asked))
    assert all(rows[c] > 0 for c in asked)
    assert all(type(c) is int for c in asked)
    assert set(made[0].lost) <= set(asked)


def test_a_round_does_not_depend_on_which_rounds_were_asked_before():
    fresh, used = (client_sampler(participation=0.3, availability=0.7, dropout=0.3) for _ in range(2))
    for server_round in range(1, 9):
        used.cohort(server_round)
    assert used.cohort(9) == fresh.cohort(9)


def test_rounds_and_seeds_draw_differently():
    cohorts = {tuple(client_sampler(seed=s, participation=0.3).cohort(r).asked) for s in (0, 1) for r in range(1, 11)}
    assert len(cohorts) > 15


def test_all_take_part_when_nothing_is_in_the_way():
    cohort = client_sampler().cohort(1)
    assert cohort.asked == list(range(20))
    assert (cohort.lost, cohort.virtual_s) == ({}, 0.0)


def test_clients_without_rows_are_never_asked():
    rows = [5, 0, 5, 0, 0, 5]
    assert client_sampler(6, rows=rows).cohort(1).asked == [0, 2, 5]
    seen = {c for r in range(1, 40) for c in client_sampler(6, rows=rows, participation=0.4).cohort(r).asked}
    assert seen == {0, 2, 5}


@pytest.mark.parametrize(
    ("participation", "holding", "expected"), [(1.0, 7, 7), (0.1, 20, 2), (0.5, 5, 3), (0.24, 10, 2), (0.01, 10, 1)]
)
def test_the_fraction_is_of_clients_with_data_rounded_and_at_least_one(participation, holding, expected):
    rows = [1] * holding + [0] * 5
    made = client_sampler(len(rows), rows=rows, participation=participation)
    assert made.per_round() == expected
    assert {len(made.cohort(r).asked) for r in range(1, 9)} == {expected}


def test_every_client_is_asked_about_as_often_as_another():
    made = client_sampler(participation=0.25)
    counts = np.bincount(np.concatenate([made.cohort(r).asked for r in range(1, 801)]), minlength=20)
    # Binomial(800, 1/4): mean 200, deviation 12.2.
    assert np.abs(counts - 200).max() < 5 * 12.2


def test_availability_thins_out_and_fills_the_cohort_from_those_who_are_there():
    made = client_sampler(200, availability=0.6)
    shares = [len(made.cohort(r).asked) / 200 for r in range(1, 41)]
    assert np.mean(shares) == pytest.approx(0.6, abs=0.03)
    assert len(set(shares)) > 5
    half = client_sampler(200, availability=0.6, participation=0.25)
    assert {len(half.cohort(r).asked) for r in range(1, 21)} == {50}
    assert set(half.cohort(3).asked) <= set(made.cohort(3).asked)


def test_with_nobody_available_nobody_is_asked():
    made = client_sampler(2, availability=0.05, dropout=0.5, slow=1.0, slow_delay_s=5.0)
    empty = [c for r in range(1, 40) if not (c := made.cohort(r)).asked]
    assert empty
    assert all((c.lost, c.virtual_s) == ({}, 0.0) for c in empty)


def test_dropouts_come_at_their_rate_and_are_still_asked():
    made = client_sampler(200, dropout=0.3)
    cohorts = [made.cohort(r) for r in range(1, 41)]
    assert np.mean([len(c.lost) / len(c.asked) for c in cohorts]) == pytest.approx(0.3, abs=0.03)
    assert all("dropped out" in reason for c in cohorts for reason in c.lost.values())
    assert all(len(c.asked) == 200 for c in cohorts)


def test_slowness_is_the_clients_own_and_delays_the_round():
    made = client_sampler(200, slow=0.25, slow_delay_s=12.0, deadline_s=10.0)
    late = [set(made.cohort(r).lost) for r in range(1, 6)]
    assert all(clients == late[0] for clients in late)
    assert len(late[0]) / 200 == pytest.approx(0.25, abs=0.1)
    assert all("deadline of 10 s" in reason for reason in made.cohort(1).lost.values())
    assert made.cohort(1).virtual_s == 10.0
    patient = client_sampler(200, slow=0.25, slow_delay_s=12.0)
    assert (patient.cohort(1).lost, patient.cohort(1).virtual_s) == ({}, 12.0)
    in_time = client_sampler(200, slow=0.25, slow_delay_s=12.0, deadline_s=12.0)
    assert (in_time.cohort(1).lost, in_time.cohort(1).virtual_s) == ({}, 12.0)
    assert client_sampler(200, slow_delay_s=12.0).cohort(1).virtual_s == 0.0


def test_troubles_do_not_change_each_others_draws():
    plain = [client_sampler(participation=0.5).cohort(r).asked for r in range(1, 6)]
    troubled = client_sampler(participation=0.5, dropout=0.4, slow=0.5, slow_delay_s=9.0, deadline_s=1.0)
    assert [troubled.cohort(r).asked for r in range(1, 6)] == plain

    dropped = set(client_sampler(dropout=0.4).cohort(2).lost)
    fewer = client_sampler(dropout=0.4, participation=0.5, availability=0.8).cohort(2)
    assert set(fewer.lost) == dropped & set(fewer.asked)

    rare, often = (set(client_sampler(availability=a).cohort(2).asked) for a in (0.3, 0.8))
    assert rare < often  # the same draws against another bar

    slow = set(client_sampler(slow=0.5, slow_delay_s=2.0, deadline_s=1.0).cohort(1).lost)
    both = client_sampler(slow=0.5, slow_delay_s=2.0, deadline_s=1.0, dropout=0.4).cohort(2)
    assert {c for c, reason in both.lost.items() if "deadline" in reason} == slow - dropped
    assert {c for c, reason in both.lost.items() if "dropped" in reason} == dropped


def test_the_available_drop_out_no_more_often_than_anyone():
    made = client_sampler(200, availability=0.5, dropout=0.3)
    cohorts = [made.cohort(r) for r in range(1, 41)]
    assert np.mean([len(c.lost) / len(c.asked) for c in cohorts]) == pytest.approx(0.3, abs=0.04)


def test_node_ids_are_the_simulations_or_those_given():
    assert client_sampler().node(4) == 5
    nodes = {0: 900, 1: 17}
    assert ClientSampler(config(2), 0, np.array([1, 1]), nodes).node(1) == 17


def as_before(made, sampler_seed, server_round, model):
    """The cohort by arrays over all clients, as it was drawn before draws were read one by one."""
    settings, rows = made._config, made.sizes
    available, count = np.flatnonzero(rows > 0), len(rows)
    size = max(1, int(settings.participation * len(available) + 0.5))
    if settings.availability < 1:
        draws = numpy_rng(sampler_seed, Stream.AVAILABILITY, server_round, model).random(count)
        available = available[draws[available] < settings.availability]
    size = min(size, len(available))
    if size < len(available):
        rng = numpy_rng(sampler_seed, Stream.COHORT, server_round, model)
        available = np.sort(rng.choice(available, size=size, replace=False))
    asked = [int(c) for c in available]
    gone = numpy_rng(sampler_seed, Stream.DROPOUT, server_round, model).random(count)
    dropped = [c for c in asked if settings.dropout > 0 and gone[c] < settings.dropout]
    slow = numpy_rng(sampler_seed, Stream.SLOW).random(count) < settings.slow
    return asked, dropped, [c for c in asked if slow[c]]


@few
@given(
    st.integers(0, 2**62), st.integers(1, 500), st.integers(0, 2), st.sampled_from([(12, 0), (3000, 0), (3000, 700)]),
    st.sampled_from([1.0, 0.4, 0.01]), st.sampled_from([1.0, 0.7]),
)  # fmt: skip
def test_the_same_cohorts_as_by_arrays_over_all_clients(seed, server_round, model, of, participation, availability):
    count, empty = of
    rows = np.full(count, 5)
    rows[:empty] = 0
    own = {"participation": participation, "availability": availability, "dropout": 0.3, "slow": 0.2}
    made = client_sampler(count, seed, rows, slow_delay_s=9.0, **own)
    found = made.cohort(server_round, model)
    asked, dropped, slow = as_before(made, seed, server_round, model)
    assert found.asked == asked
    assert sorted(found.lost) == dropped
    assert made._slow(asked) == slow


def test_beyond_a_million_clients_the_available_come_in_the_order_of_a_permutation():
    count = DENSE + 5
    rows = np.full(count, 5)
    rows[::2] = 0
    made = client_sampler(count, 3, rows, participation=40 / (count // 2), availability=0.25)
    assert made.permuted
    asked = [made.cohort(r).asked for r in range(1, 6)]
    assert all(len(set(own)) == 40 and own == sorted(own) and all(c % 2 for c in own) for own in asked)
    assert len({c for own in asked for c in own}) > 190
    reached = numpy_rng(3, Stream.AVAILABILITY, 2, 0).random(count)
    assert all(reached[c] < 0.25 for c in asked[1])
    assert (
        client_sampler(count, 3, rows, participation=40 / (count // 2), availability=0.25).cohort(2).asked == asked[1]
    )
    assert not client_sampler(DENSE, rows=np.full(DENSE, 1), availability=0.5).permuted
    assert not client_sampler(count, rows=rows, participation=1e-5).permuted


def test_of_many_clients_few_of_whom_are_available_a_round_is_refused():
    sizes = VirtualSizes(Virtual(rows=5), 100, 10**8, 0)
    with pytest.raises(ConfigError, match=r"clients\.availability=1e-06 with 100,000,000 clients: a round would look"):
        ClientSampler(config(10**8, participation=5e-7, availability=1e-6), 0, sizes)


@pytest.mark.parametrize("availability", [1.0, 0.5])
def test_a_hundred_million_virtual_clients_are_sampled_without_an_array_of_them(availability):
    sizes = VirtualSizes(Virtual(rows=5), 100, 10**8, 0)
    own = {"availability": availability, "dropout": 0.2, "slow": 0.5, "slow_delay_s": 3.0, "participation": 5e-7}
    made = ClientSampler(config(10**8, **own), 0, sizes)
    tracemalloc.start()
    cohorts = [made.cohort(r) for r in range(1, 4)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(len(cohort.asked) == made.per_round() == 50 for cohort in cohorts)
    assert cohorts[0].lost
    assert peak < 2**20
    assert made.permuted == (availability < 1)
    with pytest.raises(DataError, match="drawn when they are asked"):
        made.eligible  # noqa: B018
