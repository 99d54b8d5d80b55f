"""Schedules: against a simulation that looks at every nanosecond, and what must hold for any of them."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedimb.paces.schedule import DROPPED, STALE, UNFINISHED, Rules, as_csv, schedule


def made(versions=12, clients=8, concurrency=4, buffer=2, seed=0, longest=30, **rules):
    def duration(client, number):
        return 1 + (client * 7 + number * 13 + seed) % longest

    def draws(number):
        return np.random.default_rng([seed, number])

    return schedule(versions, Rules(np.arange(clients), concurrency, buffer, **rules), duration, draws)


def trainings(versions):
    return sorted((one for version in versions for one in version.starts), key=lambda one: one.number)


def tick_by_tick(versions, clients, concurrency, buffer, seed, longest):
    """(client, version it begins with, begins, ends, version it makes) of each training, on a clock of single units."""
    found, busy, begun, version, arrived, now, tries = [], {}, set(), 0, 0, 0, 0
    while version < versions:
        for number in sorted(n for n, ends in busy.items() if ends == now):
            del busy[number]
            found[number][4] = version + 1
            arrived += 1
            if arrived == buffer:
                version, arrived, begun = version + 1, 0, set()
                if version == versions:
                    return found
            tries = fill(found, busy, begun, version, now, tries, clients, concurrency, seed, longest)
        if now == 0 or not busy:
            tries = fill(found, busy, begun, version, now, tries, clients, concurrency, seed, longest)
        now += 1
    return found


def fill(found, busy, begun, version, now, tries, clients, concurrency, seed, longest):
    while len(busy) < concurrency:
        rng = np.random.default_rng([seed, tries])
        tries += 1
        taken = begun | {found[number][0] for number in busy}
        if len(taken) == clients:
            break
        while (client := int(rng.integers(clients))) in taken:
            pass
        number = len(found)
        found.append([client, version, now, now + 1 + (client * 7 + number * 13 + seed) % longest, None])
        busy[number] = found[number][3]
        begun.add(client)
    return tries


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("concurrency", "buffer"), [(4, 2), (6, 1), (3, 3)])
def test_a_schedule_is_that_of_a_clock_that_ticks(seed, concurrency, buffer):
    sizes = {"versions": 20, "clients": 12, "concurrency": concurrency, "buffer": buffer, "seed": seed, "longest": 40}
    own = [[one.client, one.version, one.begins_ns, one.ends_ns, one.makes] for one in trainings(made(**sizes))]
    assert own == tick_by_tick(**sizes)


@settings(suppress_health_check=[HealthCheck.too_slow])  # drawing takes long on a busy machine
@given(
    clients=st.integers(1, 12),
    share=st.floats(0.01, 1),
    part=st.floats(0.01, 1),
    dropout=st.sampled_from([0.0, 0.3]),
    availability=st.sampled_from([1.0, 0.5]),
    most=st.sampled_from([None, 0, 2]),
    seed=st.integers(0, 100),
)
def test_what_holds_for_any_schedule(clients, share, part, dropout, availability, most, seed):
    concurrency = max(1, int(clients * share))
    buffer = max(1, int(concurrency * part))
    rules = {"dropout": dropout, "availability": availability, "max_staleness": most}
    versions = made(10, clients, concurrency, buffer, seed, **rules)
    every = trainings(versions)
    assert [one.number for one in every] == list(range(len(every)))
    for client in range(clients):
        own = [one for one in every if one.client == client]
        assert all(a.ends_ns <= b.begins_ns for a, b in itertools.pairwise(own))  # one at a time
        assert len({one.version for one in own}) == len(own)  # each version at most once
    ends = [0]
    for number, version in enumerate(versions):
        assert version.ends_ns >= ends[-1]
        assert [one.client for one in version.starts] == sorted(one.client for one in version.starts)
        assert {one.version for one in version.starts} <= {number}
        assert len(version.arrivals) <= buffer
        for one in version.arrivals:
            assert one.makes == number + 1
            assert one.staleness == number - one.version >= 0
            assert ends[-1] <= one.ends_ns <= version.ends_ns
            assert most is None or one.staleness <= most
        ends.append(version.ends_ns)
    used = [one for one in every if one.makes is not None]
    assert sorted(one.number for one in used) == sorted(one.number for v in versions for one in v.arrivals)
    assert {one.lost for one in every if one.makes is None} <= {DROPPED, STALE, UNFINISHED}
    for at in sorted({one.begins_ns for one in every}):
        assert sum(one.begins_ns <= at < one.ends_ns for one in every) <= concurrency


def test_the_first_versions_do_not_depend_on_how_many_follow():
    def facts(versions):
        return [[(one.number, one.client, one.begins_ns, one.ends_ns) for one in v.starts] for v in versions]

    assert facts(made(5)) == facts(made(12))[:5]
    short, long = made(5), made(12)
    assert [v.arrivals for v in short] == [v.arrivals for v in long][:5]


def test_where_all_train_at_a_time_a_version_waits_for_all():
    """Nobody can begin again before the next version, so with a buffer of all each version is a round."""
    for version in made(4, clients=5, concurrency=5, buffer=5):
        assert [one.client for one in version.starts] == [one.client for one in version.arrivals] == list(range(5))
        assert {one.staleness for one in version.arrivals} == {0}


def test_a_version_is_made_of_fewer_when_nobody_else_can_begin():
    lossy = made(20, clients=4, concurrency=4, buffer=4, dropout=0.4)
    assert {len(version.arrivals) for version in lossy} & {1, 2, 3}


def test_exposure_weights_by_hand():
    """Two clients, one of which arrives far more often: 1/2 over (its arrivals + 1) / (all + 2), from 4 arrivals on."""
    rules = Rules(np.arange(2), 1, 1, correction="exposure")

    def draws(number):  # client 1 once in three
        class Fixed:
            def integers(self, high):
                return int(number % 3 == 2)

        return Fixed()

    versions = schedule(9, rules, lambda client, number: 1, draws)
    arrived = [one for version in versions for one in version.arrivals]
    assert [one.client for one in arrived] == [0, 0, 1] * 3
    weights = [one.weight for one in arrived]
    assert weights[:4] == [1.0] * 4
    seen = [3, 1, 4, 5]  # arrivals of the client before the fifth to the eighth of all
    expected = [0.5 / ((mine + 1) / (total + 2)) for mine, total in zip(seen, (4, 5, 6, 7), strict=True)]
    assert weights[4:8] == pytest.approx(expected)
    assert weights[5] > 1 > weights[4]


def test_exposure_weights_are_cut_at_ten():
    rules = Rules(np.arange(2), 1, 1, correction="exposure")

    class Fixed:
        def __init__(self, number):
            self.number = number

        def integers(self, high):
            return int(self.number == 99)

    versions = schedule(100, rules, lambda client, number: 1, Fixed)
    assert versions[-1].arrivals[0].client == 1
    assert versions[-1].arrivals[0].weight == 10.0


def test_the_csv_has_every_training_once():
    versions = made(6, dropout=0.3)
    lines = as_csv(versions, lambda late: 0.5).splitlines()
    assert len(lines) == 1 + len(trainings(versions))
    assert any(line.endswith(f",{DROPPED}") for line in lines)
