"""Each machine of a cluster sends one sum, and the sum of a machine that is lost is made again."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import RecordDict
from ray_nodes import two_nodes
from small_runs import launch_in, weights_sha

from fedimb.engine.lanes import ClientReply, LaneOutcome, LaneSum
from fedimb.engine.ray import RayEngine
from fedimb.engine.ray_sums import Collector, Collectors, MachineSums
from fedimb.errors import FedimbError, RunFailed
from fedimb.records import array_record


class Gone(Exception):
    """In place of what Ray raises for a lost object."""


class Later:
    """In place of a Ray reference."""

    def __init__(self, work):
        self.work = work


class FakeRay:
    """As much of Ray as collectors use; ``gone`` says how often a machine loses what it holds."""

    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node_id, soft: (node_id, soft))
    )

    def __init__(self, gone=()):
        self.gone, self.started, self.killed, self.received = Counter(dict(gone)), [], [], 0

    def remote(self, **options):
        assert options["num_cpus"] == 0
        return lambda kind: SimpleNamespace(options=lambda scheduling_strategy: self._actor(kind, scheduling_strategy))

    def _actor(self, kind, place):
        assert place[1] is False, "a collector elsewhere would move the sums it is for"
        actor, ray = kind(), self
        self.started.append(place[0])

        def add(*totals):
            def work():
                if ray.gone[place[0]] > 0:
                    ray.gone[place[0]] -= 1
                    raise Gone("the node is dead")
                return actor.add(*[total.work() for total in totals])

            return Later(work)

        methods = SimpleNamespace(
            add=SimpleNamespace(remote=add), use=SimpleNamespace(remote=lambda path: actor.use(path))
        )
        return SimpleNamespace(remote=lambda: methods)

    def get(self, later):
        self.received += 1
        return later.work()

    def kill(self, actor):
        self.killed.append(actor)


def total_of(client):
    made = LaneSum(True)
    content = RecordDict({"arrays": array_record({"w": np.array([client / 3], np.float32)})})
    made.add_reply(ClientReply(client, content=content, metrics={"num-examples": 3.0 + client}), None)
    return made


def held(sums, machine, lanes):
    call = object()
    whole = LaneSum(True)
    for lane in lanes:
        whole.add(total_of(lane))
    sums.start(call, Later(lambda: whole), machine)
    sums.keep(call, lanes)


def outcomes_of(lanes):
    return {lane: LaneOutcome([], LaneSum(True)) for lane in lanes}


def whole_of(outcomes):
    total = LaneSum(True)
    for outcome in outcomes.values():
        total.add(outcome.total)
    return total.model.words().tolist()


def test_the_driver_receives_one_sum_per_machine_and_each_client_is_in_it_once():
    ray = FakeRay()
    sums = MachineSums(ray, Collectors(ray), (Gone,))
    for machine, lanes in (("a", [0, 3]), ("b", [1]), ("a", [4]), ("a", [2, 6]), ("b", [5])):
        held(sums, machine, lanes)
    outcomes = outcomes_of(range(7))
    assert sums.collect(outcomes) == []
    assert ray.received == 2
    assert whole_of(outcomes) == whole_of({k: LaneOutcome([], total_of(k)) for k in range(7)})
    assert sorted(ray.started) == ["a", "b"]


def test_a_machine_with_one_sum_needs_no_collector():
    ray = FakeRay()
    sums = MachineSums(ray, Collectors(ray), (Gone,))
    held(sums, "a", [0, 1])
    outcomes = outcomes_of(range(2))
    assert sums.collect(outcomes) == []
    assert ray.started == []


def test_all_lanes_of_a_lost_machine_run_again_and_none_of_another():
    ray = FakeRay({"b": 1})
    collectors = Collectors(ray)
    sums = MachineSums(ray, collectors, (Gone,))
    for machine, lanes in (("a", [0]), ("a", [2]), ("b", [1, 4]), ("b", [3])):
        held(sums, machine, lanes)
    outcomes = outcomes_of(range(5))
    assert sums.collect(outcomes) == [1, 3, 4]
    assert len(ray.killed) == 1
    for lane in (1, 3, 4):  # as the pool does, on whichever machine
        outcomes[lane] = LaneOutcome([], LaneSum(True))
        held(sums, "a" if lane < 3 else "b", [lane])
    assert sums.collect(outcomes) == []
    assert whole_of(outcomes) == whole_of({k: LaneOutcome([], total_of(k)) for k in range(5)})


def test_machines_that_keep_losing_their_sums_end_the_run():
    ray = FakeRay({"a": 9})
    sums = MachineSums(ray, Collectors(ray), (Gone,))
    for _ in range(2):
        held(sums, "a", [0])
        held(sums, "a", [1])
        assert sums.collect(outcomes_of(range(2))) == [0, 1]
    held(sums, "a", [0])
    held(sums, "a", [1])
    with pytest.raises(RunFailed, match="lost the sums of their clients 3 times"):
        sums.collect(outcomes_of(range(2)))


def test_sums_that_do_not_fit_together_are_an_error_and_no_reason_to_run_again():
    other = LaneSum(True)
    content = RecordDict({"arrays": array_record({"w": np.zeros(2, np.float32)})})
    other.add_reply(ClientReply(0, content=content, metrics={"num-examples": 3.0}), None)
    with pytest.raises(FedimbError, match="arrays of other shapes"):
        Collector().add(total_of(1), other)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_machine_killed_after_its_clients_trained_leaves_the_same_bits(tmp_path, monkeypatch):
    words = ("clients.count=9", "model.hidden=[1500]", "rounds=2")  # sums of 0.9 MB, which stay in their node's store
    reference = weights_sha(launch_in(tmp_path / "inline", "engine=inline", *words))
    received, collect = [], MachineSums.collect
    with two_nodes(cpus=2) as cluster, RayEngine(address=cluster.address) as engine:
        engine.start()

        def counted(sums, outcomes):
            machines = len(sums._held)
            again = collect(sums, outcomes)
            received.append((machines, sum(o.total.weight > 0 for o in outcomes.values()), again))
            return again

        monkeypatch.setattr(MachineSums, "collect", counted)
        assert weights_sha(launch_in(tmp_path / "whole", "engine=ray", *words, engine=engine)) == reference
        assert received == [(2, 2, [])] * 2
        assert len(engine.pool.actors) == 4
        assert len(engine.pool._collectors._of) == 2

        def killed(sums, outcomes):
            if cluster.worker_nodes:
                (lost,) = cluster.worker_nodes
                cluster.remove_node(lost, False)
            return counted(sums, outcomes)

        monkeypatch.setattr(MachineSums, "collect", killed)
        received.clear()
        assert weights_sha(launch_in(tmp_path / "lost", "engine=ray", *words, engine=engine)) == reference
        assert received[0][2], "the lost machine's clients ran again"
        assert [one[2] for one in received[1:]] == [[]] * (len(received) - 1)
        assert weights_sha(launch_in(tmp_path / "after", "engine=ray", *words, engine=engine)) == reference
