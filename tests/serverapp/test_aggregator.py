import numpy as np
import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

from fedimb import registry
from fedimb.engine.grid import exchange
from fedimb.engine.lanes import gather
from fedimb.errors import RunFailed
from fedimb.records import array_record, to_numpy
from fedimb.serverapp.aggregator import Aggregator
from fedimb.sums import WeightLimits

LINEAR = {"fedavg": True, "fedavgm": True, "fedmedian": False, "krum": False, "qfedavg": False}
ARGS = {"qfedavg": {"client_learning_rate": 0.1}}
every = pytest.mark.parametrize("name", LINEAR)


def build(name, **train_config):
    strategy = registry.build("aggregator", name, **ARGS.get(name, {}))
    parameters = {"w": np.zeros(3, np.float32), "b": np.ones((2, 2), np.float32)}
    return Aggregator(strategy, LINEAR[name], parameters, {"n": np.array(4, np.int64), "m": np.zeros(2)}, train_config)


def answer(order, client, weight=None, order_of=("w", "b"), loss=1.0, **changes):
    rng = np.random.default_rng(client)
    arrays = {"w": rng.normal(size=3).astype(np.float32), "b": rng.normal(size=(2, 2)).astype(np.float32)} | changes
    metrics = {"num-examples": client + 1.0 if weight is None else weight, "start_loss": 0.5, "train_loss": loss}
    buffers = {"n": np.array(client), "m": rng.normal(size=2)}
    content = {
        "arrays": array_record({k: arrays[k] for k in order_of}),
        "metrics": MetricRecord(metrics),
        "x.buffers": array_record(buffers),
    }
    return Message(RecordDict(content), reply_to=order)


def play(model, make, clients=range(6), server_round=1):
    """One round: ``make(order, client)`` is each client's reply."""
    instructions = model.configure(server_round, {client + 1: client for client in clients})
    replies = [(client, make(order, client)) for client, order in instructions]
    outcome = gather(replies, model.reduction(WeightLimits.of([64.0] * 6)))
    return model.aggregate(server_round, outcome, instructions), outcome


def assert_same(one, two):
    for mine, theirs in ((one.parameters, two.parameters), (one.buffers, two.buffers)):
        assert list(mine) == list(theirs)
        for key, value in mine.items():
            np.testing.assert_array_equal(value, theirs[key])
            assert value.dtype == theirs[key].dtype


@every
def test_each_client_gets_the_model_and_the_rounds_settings_once(name):
    model = build(name, epochs=3)
    instructions = model.configure(5, {31: 7, 2: 1, 900: 4})
    assert [client for client, _ in instructions] == [1, 4, 7]
    assert [m.metadata.dst_node_id for _, m in instructions] == [2, 900, 31]
    for _, message in instructions:
        assert message.metadata.message_type == "train"
        assert message.content["config"]["server-round"] == 5
        assert message.content["config"]["epochs"] == 3
        for key, value in to_numpy(message.content["arrays"]).items():
            np.testing.assert_array_equal(value, model.parameters[key])
    assert "server-round" not in model._train_config


def test_fedprox_tells_its_clients_mu():
    strategy = registry.build("aggregator", "fedprox", proximal_mu=0.25)
    model = Aggregator(strategy, True, {"w": np.zeros(1, np.float32)}, {})
    assert model.configure(1, {1: 0})[0][1].content["config"]["proximal-mu"] == 0.25


@every
@pytest.mark.parametrize(
    "bad",
    [
        {"weight": 0.0},
        {"weight": -1.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"w": np.array([1, np.nan, 1], np.float32)},
        {"b": np.full((2, 2), np.inf, np.float32)},
    ],
    ids=str,
)
def test_empty_and_not_finite_replies_count_for_nothing(name, bad):
    with_bad, without = build(name), build(name)
    metrics, outcome = play(with_bad, lambda order, client: answer(order, client, **(bad if client == 2 else {})))
    expected, _ = play(without, answer, clients=[0, 1, 3, 4, 5])
    assert metrics == expected
    assert_same(with_bad, without)
    assert [a.client for a in outcome.replies if not a.usable] == [2]
    assert outcome.replies[2].error


@every
def test_errors_and_replies_without_weights_count_for_nothing(name):
    def make(order, client):
        if client == 1:
            return Message(Error(code=1300, reason="client 1: boom"), reply_to=order)
        reply = answer(order, client)
        if client == 4:
            del reply.content["arrays"]
        if client == 5:
            del reply.content["metrics"]
        return reply

    with_bad, without = build(name), build(name)
    metrics, outcome = play(with_bad, make)
    expected, _ = play(without, answer, clients=[0, 2, 3])
    assert metrics == expected
    assert_same(with_bad, without)
    assert outcome.replies[1].error == "client 1: boom"
    assert "no record 'arrays'" in outcome.replies[4].error
    assert "no record 'metrics'" in outcome.replies[5].error


@every
def test_without_a_usable_reply_everything_stays_as_it_was(name):
    model, untouched = build(name), build(name)
    play(model, answer)
    play(untouched, answer)
    metrics, _ = play(model, lambda order, client: answer(order, client, weight=0.0), server_round=2)
    assert metrics == {}
    assert_same(model, untouched)
    untouched.configure(2, {1: 0})
    one, two = (play(m, answer, server_round=3)[0] for m in (model, untouched))
    assert one == two
    assert_same(model, untouched)


@every
def test_the_order_in_which_replies_arrive_does_not_matter(name):
    class Wire:
        def __init__(self, turn):
            self.turn = turn

        def send_and_receive(self, messages):
            return self.turn([answer(m, m.metadata.dst_node_id - 1) for m in messages])

    models = []
    for turn in (list, lambda replies: replies[::-1], lambda replies: replies[3:] + replies[:3]):
        models.append(build(name))
        instructions = models[-1].configure(1, {client + 1: client for client in range(40)})
        models[-1].aggregate(1, exchange(Wire(turn), instructions, models[-1].linear), instructions)
    assert_same(models[0], models[1])
    assert_same(models[0], models[2])


def test_answers_out_of_order_are_sorted_before_a_strategy_sees_them():
    models = [build("krum"), build("krum"), build("fedmedian"), build("fedmedian")]
    for index, model in enumerate(models):
        instructions = model.configure(1, {client + 1: client for client in range(6)})
        outcome = gather([(client, answer(order, client)) for client, order in instructions], reduce=False)
        outcome.replies = outcome.replies[::-1] if index % 2 else outcome.replies
        model.aggregate(1, outcome, instructions)
    assert_same(models[0], models[1])
    assert_same(models[2], models[3])


@every
def test_the_order_of_arrays_within_a_reply_does_not_matter(name):
    straight, turned = build(name), build(name)
    for server_round in (1, 2):
        play(straight, answer, server_round=server_round)
        play(turned, lambda o, c: answer(o, c, order_of=("b", "w")), server_round=server_round)
    assert_same(straight, turned)


@every
@pytest.mark.parametrize("arrays", [("w",), ("w", "b", "other")])
def test_weights_of_another_model_stop_the_run_with_their_names(name, arrays):
    model = build(name)
    with pytest.raises(RunFailed, match="b" if len(arrays) == 1 else "other"):
        play(model, lambda o, c: answer(o, c, order_of=arrays, other=np.zeros(2, np.float32)))
    with pytest.raises(RunFailed, match=r"\(w\)"):
        play(model, lambda o, c: answer(o, c, w=np.zeros(4, np.float32)))


@every
def test_a_metric_undefined_at_one_client_is_the_mean_over_the_others(name):
    def make(order, client):
        return answer(order, client, loss=float("nan") if client == 0 else 2.0)

    metrics, _ = play(build(name), make)
    assert metrics["train_loss"] == pytest.approx(2.0)
    metrics, _ = play(build(name), lambda o, c: answer(o, c, loss=float("nan")))
    assert np.isnan(metrics["train_loss"])


def test_metrics_are_means_by_weight_without_the_weight_itself():
    for name in LINEAR:
        metrics, _ = play(build(name), lambda o, c: answer(o, c, loss=float(c)), clients=range(3))
        expected = {"krum": (0.0, 1.0, 2.0)}.get(name, (np.average([0, 1, 2], weights=[1, 2, 3]),))
        assert metrics["train_loss"] in [pytest.approx(e) for e in expected]
        assert "num-examples" not in metrics


def test_a_strategy_that_makes_weights_not_finite_stops_the_run_and_keeps_the_model():
    model, untouched = build("qfedavg"), build("qfedavg")

    def make(order, client):
        reply = answer(order, client)
        reply.content["metrics"]["start_loss"] = -1.0  # a negative number to a fractional power
        return reply

    with pytest.raises(RunFailed, match="round 1: aggregator QFedAvg returned non-finite weights"):
        play(model, make)
    assert_same(model, untouched)


def test_integer_buffers_are_rounded_means_and_never_reach_the_strategy():
    model = build("fedavg")
    play(model, answer, clients=[1, 2])  # counters 1 and 2 with weights 2 and 3: 1.6
    assert model.buffers["n"] == 2
    assert model.buffers["n"].dtype == np.int64
    assert model.buffers["n"].shape == ()
    expected = (2 * np.random.default_rng(1).normal(size=9)[7:] + 3 * np.random.default_rng(2).normal(size=9)[7:]) / 5
    np.testing.assert_allclose(model.buffers["m"], expected)


def test_a_strategy_that_exchanges_messages_while_configuring_is_told_what_to_use():
    from flwr.serverapp.strategy import FedAvg

    class Curious(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            grid.send_and_receive(super().configure_train(server_round, arrays, config, grid))

    model = Aggregator(Curious(min_available_nodes=1, min_train_nodes=1), True, {"w": np.zeros(1, np.float32)}, {})
    with pytest.raises(RunFailed, match="Query steps"):
        model.configure(1, {1: 0})


@pytest.mark.parametrize(("name", "settings"), [("fedavgm", {"server_momentum": 0.0}), ("fedadam", {})])
def test_a_servers_learning_rate_follows_its_schedule_round_by_round(name, settings):
    """Each round is that of an aggregator built with the round's rate; afterwards the strategy is as configured."""
    attribute = registry.flags("aggregator", name)["server_lr"]
    factors = {1: 0.5, 2: 1.0, 3: 0.25}
    zero = {"w": np.zeros(3, np.float32)}
    strategy = registry.build("aggregator", name, **settings)
    before = {key: getattr(strategy, key) for key in (attribute, "server_opt") if hasattr(strategy, key)}
    ours = Aggregator(strategy, True, zero, {}, server_lr=(attribute, factors.__getitem__))
    state = None
    for server_round, factor in factors.items():
        single = registry.build("aggregator", name, **{attribute: before[attribute] * factor}, **settings)
        single.server_opt = True
        theirs = Aggregator(single, True, ours.parameters, {})
        if state is not None:
            theirs.load_state_dict(state)
        for model in (ours, theirs):
            play(model, lambda order, client: answer(order, client, order_of=("w",)), server_round=server_round)
        np.testing.assert_allclose(ours.parameters["w"], theirs.parameters["w"], rtol=1e-6)
        state = ours.state_dict()
        assert {key: getattr(strategy, key) for key in before} == before
