"""Actors that die, seen by a pool over a Ray of plain Python: nothing lost, nothing hung, the right clients blamed."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.engine import ray_pool
from fedimb.engine.grid import Job
from fedimb.engine.ray_pool import Pool
from fedimb.engine.ray_worker import batches
from fedimb.errors import RunFailed


class Died(Exception):
    """In place of Ray's RayActorError."""


class OutOfMemory(Exception):
    """In place of what Ray raises for an actor its memory monitor ended; no RayActorError."""


class Call:
    """A call of an actor, run when it is waited for."""

    def __init__(self, actor, work):
        self.actor, self.work = actor, work


class Method:
    def __init__(self, actor, work):
        self.actor, self.work = actor, work

    def remote(self, *args):
        self.actor.calls.append(call := Call(self.actor, lambda: self.work(*args)))
        return call


class Actor:
    """Runs its calls in order, once it has a CPU; ``deaths`` says how often each client ends its process."""

    def __init__(self, ray):
        self.ray, self.calls, self.dead, self.placed = ray, [], None, False
        self.ready, self.run_lanes = Method(self, self._ready), Method(self, self._run)
        ray.started.append(self)

    def _ready(self):
        if self.ray.broken > 0:
            self.ray.broken -= 1
            self.dead = Died("no memory to start in")
            raise self.dead
        return 7

    def _run(self, job, lanes, shared, reduce, first_ids, path, admission):
        self.ray.sizes.append(len(lanes))
        for lane in lanes:
            for client, *_ in lane:
                if self.ray.deaths[client] > 0:
                    self.ray.deaths[client] -= 1
                    self.dead = self.ray.kind("the process ended\nwith details")
                    raise self.dead
        return [(first, [entry[0] for entry in lane]) for first, lane in zip(first_ids, lanes, strict=True)]


class FakeRay:
    """As much of Ray as a pool uses. Calls end in the order in which they were made, actor by actor."""

    exceptions = SimpleNamespace(
        RayError=Died,
        RayActorError=Died,
        OutOfMemoryError=OutOfMemory,
        NodeDiedError=Died,
        WorkerCrashedError=Died,
        ObjectLostError=Died,
    )

    def __init__(self, deaths=(), kind=Died, room=99, broken=0):
        self.deaths, self.kind, self.room, self.broken = Counter(dict(deaths)), kind, room, broken
        self.started, self.killed, self.sizes = [], [], []

    def remote(self, **options):
        return lambda worker: SimpleNamespace(remote=lambda: Actor(self))

    def put(self, value):
        return value

    def placed(self, actor):
        if not actor.placed and sum(one.placed and one not in self.killed for one in self.started) < self.room:
            actor.placed = True
        return actor.placed

    def wait(self, calls, timeout=None):
        ended = [c for c in calls if c.actor.dead or (c is c.actor.calls[0] and self.placed(c.actor))]
        assert ended or timeout, "waits for ever"
        return ended[:1], []

    def get(self, call):
        if call.actor.dead:
            raise call.actor.dead
        assert call is call.actor.calls.pop(0)
        return call.work()

    def kill(self, actor):
        self.killed.append(actor)


def lanes_of(count):
    return [[(client, client + 1, "train", None)] for client in range(count)]


def outcome(pool, count, reduce=False):
    return pool.run(Job("", "{}", count), lanes_of(count), {}, reduce, [1.0] * count)


def expected(count):
    return [(i + 1, [i]) for i in range(count)]


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(1, 12))
def test_batches_hold_every_lane_once_and_the_longest_first(costs, count):
    shares = batches(costs, count)
    assert sorted(lane for share in shares for lane in share) == list(range(len(costs)))
    assert len(shares) <= count
    assert all(share == sorted(share) and share for share in shares)
    loads = [sum(costs[lane] for lane in share) for share in shares]
    if costs:  # no call outlasts the mean by more than one lane
        assert max(loads) <= sum(costs) / len(shares) + max(costs) + 1e-3


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 2), max_size=4), st.integers(1, 4))
@settings(max_examples=25)
def test_every_lane_has_one_outcome_whoever_dies(deaths, workers):
    pool = Pool(FakeRay(deaths), {})
    pool.fill(workers)
    assert outcome(pool, 10) == expected(10)
    assert outcome(pool, 10) == expected(10)


def test_replies_that_are_summed_come_in_one_call_per_worker_and_die_with_it_whole():
    ray = FakeRay({})
    pool = Pool(ray, {})
    pool.fill(2)
    assert outcome(pool, 10, True) == expected(10)
    assert ray.sizes == [5, 5]
    ray = FakeRay({7: 1})
    pool = Pool(ray, {})
    pool.fill(2)
    assert outcome(pool, 10, True) == expected(10)
    assert sorted(ray.sizes) == [1, 1, 1, 1, 1, 5, 5], "all lanes of the call are run again, one by one"


def test_a_lane_that_kills_three_times_is_named_with_what_to_do_and_its_neighbours_are_not():
    ray = FakeRay({4: 9})
    pool = Pool(ray, {})
    pool.fill(1)
    with pytest.raises(RunFailed) as error:
        outcome(pool, 8)
    assert str(error.value).startswith("clients [4] killed their worker process 3 times; its machine may have run out")
    assert "fewer engine.workers, a smaller local.batch_size" in str(error.value)
    assert str(error.value).endswith("(Ray says: Died: the process ended)")
    assert ray.sizes[0] == 4
    assert set(ray.sizes[-3:]) == {1}, "tried again one lane at a time"


class Copied(RunFailed):
    """In place of Ray's RayTaskError: of the error's class, with the worker's traceback as its text."""

    cause = RunFailed("aggregator Mine: weights() returned 'mean': -1.0")


def test_an_error_of_fedimb_in_a_worker_is_raised_as_it_was():
    pool = Pool(FakeRay({2: 1}, kind=Copied), {})
    pool.fill(1)
    with pytest.raises(RunFailed) as caught:
        outcome(pool, 5)
    assert caught.value is Copied.cause


def test_an_actor_that_rays_memory_monitor_ends_is_replaced_like_any_other():
    ray = FakeRay({2: 1}, kind=OutOfMemory)
    pool = Pool(ray, {})
    pool.fill(2)
    assert outcome(pool, 5) == expected(5)
    assert len(ray.started) == 3
    assert len(ray.killed) == 1


def test_a_cluster_that_becomes_smaller_goes_on_with_the_workers_it_has():
    ray = FakeRay({0: 1}, room=2)
    pool = Pool(ray, {})
    pool.fill(2)
    ray.room = 1  # the machine of the one that dies goes with it: its successor gets no CPU
    assert outcome(pool, 6) == expected(6)
    assert len(pool.actors) == 1
    ray.room = 2  # and is taken in when there is room again
    assert outcome(pool, 6) == expected(6)
    assert len(pool.actors) == 2


def test_no_worker_left_is_said_and_waited_for(caplog, monkeypatch):
    monkeypatch.setattr(ray_pool, "_PATIENCE_S", 0.01)
    ray = FakeRay({0: 1})
    pool = Pool(ray, {})
    pool.fill(1)
    ray.room = 0

    def later(calls, timeout=None, wait=ray.wait):
        found = wait(calls, timeout)
        if not found[0]:
            ray.room = 1
        return found

    ray.wait = later
    assert outcome(pool, 3) == expected(3)
    assert "no worker is running; waiting for a free CPU" in caplog.text


def test_workers_that_do_not_start_fail_the_run_and_leave_nothing():
    ray = FakeRay(broken=2)
    pool = Pool(ray, {})
    pool.fill(2)
    assert len(pool.actors) == 2
    ray = FakeRay(broken=99)
    pool = Pool(ray, {})
    with pytest.raises(
        RunFailed, match=r"worker processes do not start, 3 failed in a row; its machine may have run out"
    ):
        pool.fill(2)
    assert pool.actors == []
    assert {id(actor) for actor in ray.started if not actor.dead} <= {id(actor) for actor in ray.killed}
