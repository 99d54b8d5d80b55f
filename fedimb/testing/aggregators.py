"""The contract of an aggregator: how it treats the replies of a round, in any number and any order."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

from fedimb import registry
from fedimb.contracts import platform as names
from fedimb.engine.lanes import WEIGHT, Reduction, gather
from fedimb.records import Arrays, array_record, to_numpy
from fedimb.serverapp.aggregator import Aggregator, chain
from fedimb.sums import WeightLimits
from fedimb.testing.expectations import Contract, check_yaml, same
from fedimb.testing.runs import compare, configured, run, run_killed, small_tables

CLIENTS = range(8)
"""Eight replies: robust rules need 4 f + 3 of them."""

Reply = Callable[[Message, int], Message]


def check_aggregator(
    name: str, *, single_as_is: bool | None = None, run_words: Sequence[str] = (), **settings: object
) -> None:
    """Check that an aggregator keeps dtypes and shapes, ignores empty replies, and survives a kill unchanged.

    Args:
        name: as registered under kind ``aggregator``.
        single_as_is: whether the weights of a round with one reply become the model's unchanged (FedAvg), or not (a
            server optimizer); None: not checked.
        run_words: additional overrides of the runs, as on the command line: ``"loss=bce"``.
        settings: settings of the aggregator, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("aggregator", name)
    check_yaml(contract, "aggregator", name)
    with small_tables() as place:
        with contract.rule("a run accepts its settings"):
            config = configured(place, run_words, {"aggregator": (name, settings)})
        own = {key: value for key, value in config.aggregator.items() if key not in ("name", "objectives")}

        def fresh(linear: bool | None = None) -> Aggregator:
            strategy = registry.build("aggregator", name, {"n_clients": len(CLIENTS)}, **own)
            declared = bool(registry.flags("aggregator", name).get("linear", False))
            return Aggregator(strategy, declared if linear is None else linear, *_model())

        with contract.rule("it declares whether it is linear"):
            flags = registry.flags("aggregator", name)
            contract.expect(isinstance(flags.get("linear"), bool), "flag linear=True or False at register", flags)
        _check_messages(contract, fresh)
        _check_values(contract, fresh, single_as_is)
        _check_order(contract, fresh, bool(flags["linear"]))
        _check_state(contract, fresh)
        with contract.rule("killed after every round and resumed, a run ends with the same weights and state"):
            whole = run(config, place / "whole")
            again, deaths = run_killed(config, place / "killed")
            contract.expect(deaths >= config.rounds, f"a checkpoint after each of {config.rounds} rounds", deaths)
            compare(contract, again, whole)


Fresh = Callable[..., Aggregator]


def _model() -> tuple[Arrays, Arrays]:
    """Weights in two dtypes, and buffers in two more."""
    parameters: Arrays = {
        "w": np.linspace(-1, 1, 3, dtype=np.float32),
        "b": np.ones((2, 2), np.float32),
        "scalar": np.array(0.5, np.float32),
    }
    return parameters, {"count": np.array(4, np.int64), "mean": np.zeros(2)}


def _trained(model: Aggregator) -> Reply:
    """Replies of clients that trained: each with its own weights, weight, loss, and records the aggregator reads."""
    reads = getattr(chain(model.strategy)[-1], "reads", ())

    def reply(message: Message, client: int) -> Message:
        rng = np.random.default_rng(client)
        moved = {k: v + rng.normal(scale=0.1, size=v.shape).astype(v.dtype) for k, v in _received(message).items()}
        return _reply(message, moved, client + 1.0, reads, client)

    return reply


def reduction_of(model: Aggregator, replies: Iterable[tuple[int, Message]]) -> Reduction:
    """How replies of made-up clients are summed: the largest of their weights is the largest one expected."""
    contents = [message.content for _, message in replies if not message.has_error()]
    records = [content.metric_records[names.METRICS] for content in contents if names.METRICS in content]
    given = [float(cast(float, record.get(WEIGHT, 0.0))) for record in records]
    largest = max([1.0, *(weight for weight in given if math.isfinite(weight))])
    return model.reduction(WeightLimits.of([largest] * max(1, len(given))))


def _received(message: Message) -> Arrays:
    return to_numpy(message.content.array_records[names.ARRAYS])


def _reply(message: Message, arrays: Mapping[str, Any], weight: float, reads: Iterable[str], client: int) -> Message:
    arrays = {k: np.asarray(v, np.float32) for k, v in arrays.items()}
    buffers = {"count": np.array(client), "mean": np.full(2, float(client))}
    content = RecordDict({names.ARRAYS: array_record(arrays), names.BUFFERS: array_record(buffers)})
    metrics = {WEIGHT: weight, "train_loss": 1.0, "start_loss": 0.5 + 0.1 * client, "steps": 2.0 + client % 3}
    content[names.METRICS] = MetricRecord(metrics)  # type: ignore[arg-type]
    for key in reads:
        rng = np.random.default_rng([client, 1])
        content[key] = array_record({k: rng.normal(size=v.shape).astype(np.float32) for k, v in arrays.items()})
    return Message(content, reply_to=message)


def _play(model: Aggregator, make: Reply, clients: Iterable[int] = CLIENTS, server_round: int = 1) -> dict[str, float]:
    """Run one round, where ``make(message, client)`` is each client's reply. Returns the round's metrics."""
    instructions = model.configure(server_round, {client + 1: client for client in clients})
    replies = [(client, make(message, client)) for client, message in instructions]
    outcome = gather(replies, reduction_of(model, replies), dict(instructions))
    return model.aggregate(server_round, outcome, instructions)


def _check_messages(contract: Contract, fresh: Fresh) -> None:
    with contract.rule("each client of the cohort gets the model once"):
        model = fresh()
        instructions = model.configure(5, {31: 7, 2: 1, 900: 4})
        contract.equal([client for client, _ in instructions], [1, 4, 7], "clients")
        contract.equal([m.metadata.dst_node_id for _, m in instructions], [2, 900, 31], "nodes")
        for _, message in instructions:
            contract.equal(message.metadata.message_type, "train", "the message's type")
            contract.equal(_received(message), model.parameters, "the model's weights")


def _check_values(contract: Contract, fresh: Fresh, single_as_is: bool | None) -> None:
    with contract.rule("weights and buffers keep their names, shapes and dtypes, and are finite"):
        model = fresh()
        for server_round in (1, 2, 3):
            _play(model, _trained(model), server_round=server_round)
        for before, after in zip(_model(), (model.parameters, model.buffers), strict=True):
            contract.equal(list(after), list(before), "names")
            for key, value in before.items():
                contract.equal((after[key].shape, after[key].dtype), (value.shape, value.dtype), key)
                contract.finite(after[key], key)
        contract.expect(not same(model.parameters, _model()[0]), "weights that changed", model.parameters)
    with contract.rule("a round in which no client changed anything changes nothing"):
        model = fresh()
        reads = getattr(chain(model.strategy)[-1], "reads", ())
        _play(model, lambda message, client: _reply(message, _received(message), 1.0, reads, client))
        for key, value in _model()[0].items():
            close = np.allclose(model.parameters[key], value, rtol=0, atol=1e-6)
            contract.expect(close, f"'{key}' as it was, {value}", model.parameters[key])
    with contract.rule("a round without a usable reply changes nothing and leaves no trace"):
        model, untouched = fresh(), fresh()
        for one in (model, untouched):
            _play(one, _trained(one))
        reads = getattr(chain(model.strategy)[-1], "reads", ())
        empty = _play(
            model, lambda message, client: _reply(message, _received(message), 0.0, reads, client), server_round=2
        )
        untouched.configure(2, {1: 0})
        contract.equal(empty, {}, "no metrics")
        contract.equal(model.parameters, untouched.parameters, "weights as they were")
        for one in (model, untouched):
            _play(one, _trained(one), server_round=3)
        contract.equal(model.parameters, untouched.parameters, "the next round as without the empty one")
    with contract.rule("a client of weight 0 has no influence"):
        model, without = fresh(), fresh()
        reads = getattr(chain(model.strategy)[-1], "reads", ())

        def one_empty(message: Message, client: int) -> Message:
            if client != 3:
                return _trained(model)(message, client)
            return _reply(message, {k: v + 100 for k, v in _received(message).items()}, 0.0, reads, client)

        _play(model, one_empty)
        _play(without, _trained(without), clients=[client for client in CLIENTS if client != 3])
        contract.equal(model.parameters, without.parameters, "the weights without it")
        contract.equal(model.buffers, without.buffers, "the buffers without it")
    if single_as_is is not None:
        with contract.rule(f"the weights of one client are {'' if single_as_is else 'not '}the model's"):
            model, sent = fresh(), []
            reply = _trained(model)

            def noted(message: Message, client: int) -> Message:
                sent_reply = reply(message, client)
                sent.append(to_numpy(sent_reply.content.array_records[names.ARRAYS]))
                return sent_reply

            _play(model, noted, clients=[2])
            contract.equal(all(np.allclose(model.parameters[k], v) for k, v in sent[0].items()), single_as_is)


def _check_order(contract: Contract, fresh: Fresh, linear: bool) -> None:
    with contract.rule("the order in which replies arrive makes no difference"):
        models = [fresh(), fresh()]
        for turned, model in enumerate(models):
            instructions = model.configure(1, {client + 1: client for client in CLIENTS})
            reply = _trained(model)
            replies = [(client, reply(message, client)) for client, message in instructions]
            outcome = gather(replies, reduction_of(model, replies), dict(instructions))
            outcome.replies = outcome.replies[::-1] if turned else outcome.replies
            model.aggregate(1, outcome, instructions)
        contract.equal(models[1].parameters, models[0].parameters, "the same weights")
    if not linear:
        return
    with contract.rule("it is linear: which client sent which weights makes no difference"):
        models = [fresh(), fresh()]
        for model, turn in zip(models, (0, 3), strict=True):
            _play(model, _turned(_trained(model), turn))
        _close(contract, models[1], models[0])
    with contract.rule("it is linear: the replies' mean gives the same result as the replies"):
        summed, each = fresh(linear=True), fresh(linear=False)
        for model in (summed, each):
            for server_round in (1, 2):
                _play(model, _trained(model), server_round=server_round)
        _close(contract, summed, each)


def _turned(reply: Reply, turn: int) -> Reply:
    """Each client sends the reply of another client."""
    return lambda message, client: reply(message, (client + turn) % len(CLIENTS))


def _close(contract: Contract, found: Aggregator, expected: Aggregator) -> None:
    for key, value in expected.parameters.items():
        close = np.allclose(found.parameters[key], value, rtol=1e-4, atol=1e-5)
        contract.expect(close, f"'{key}' close to {value}", found.parameters[key])


def _check_state(contract: Contract, fresh: Fresh) -> None:
    with contract.rule("its state, loaded into a new one, continues the run"):
        model, other = fresh(), fresh()
        for server_round in (1, 2):
            _play(model, _trained(model), server_round=server_round)
        state = copy.deepcopy(model.state_dict())
        other.parameters, other.buffers = dict(model.parameters), dict(model.buffers)
        other.load_state_dict(state)
        for one in (model, other):
            _play(one, _trained(one), server_round=3)
        contract.equal(other.parameters, model.parameters, "the weights of the third round")
        contract.equal(other.state_dict(), model.state_dict(), "the state after the third round")
