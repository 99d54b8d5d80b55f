"""The contract of a method: its run survives anything that may happen to a run, and sends only what it declares."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message
from safetensors.numpy import load_file

from fedimb import registry
from fedimb.clientapp.runtime import ClientRuntime
from fedimb.contracts.base import declaration_fault
from fedimb.contracts.platform import PART
from fedimb.engine.open import open_engine
from fedimb.errors import ConfigError, DataError, RunFailed
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig
from fedimb.testing.expectations import Contract, check_yaml
from fedimb.testing.runs import compare, configured, model_files, run, run_killed, small_tables, trained_on, weights

_TRAINS_FIRST = {"scope": {"warmup": 1}}
"""A method that trains a round before its inner method's program begins."""


def check_method(name: str, *, run_words: Sequence[str] = (), ray: bool = True, **settings: object) -> None:
    """Check that a method runs in a small federation and that interruptions and edge cases do not change its result.

    The run is killed after every step and resumed to the same weights, with every item of the server's, the
    aggregator's and the clients' state as before; Ray gives the weights of the inline engine; a client with one row, a
    client that lacks a class, a class that nobody holds and a federation of one client run, or are refused before work;
    so does a run inside a method that trains before the program of this one begins;
    a record that its contract does not declare does not leave a client; where clients go on with other rows, the
    program has said that a new part of the training begins.

    Args:
        name: as registered under the kinds ``strategy``, ``client`` and ``contract``.
        run_words: additional overrides of the runs, as on the command line: ``"rounds=6"``, ``"data.public=3"``.
        ray: False skips the comparison of engines, which takes seconds and works only for installed methods.
        settings: settings of the method, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("strategy", name)
    _check_sides(contract, name, settings)
    part = {"strategy": (name, settings)}
    with small_tables() as place:
        with contract.rule("it runs with a client of one row and one that lacks a class"):
            config = configured(place, run_words, part)
            with trained_on() as rows:
                whole = run(config, place / "whole")
            contract.expect(_finite(whole), "finite weights", "NaN or infinity")
        _check_parts(contract, whole, rows)
        with contract.rule("killed after every step and resumed, it ends with the same weights and state"):
            again, deaths = run_killed(config, place / "killed")
            contract.expect(deaths >= 2, "at least two checkpoints to be killed after", deaths)
            compare(contract, again, whole)
        with contract.rule("the same run again gives the same weights"):
            contract.equal(weights(run(config, place / "again")), weights(whole), "the same model file")
        for case, more in (("a class that nobody holds", {"absent": True}), ("one client", {"clients": 1})):
            _check_case(Contract("strategy", name, case), configured(place, run_words, part, **more), place / case)
        if name not in _TRAINS_FIRST:
            _check_inside(Contract("strategy", name, "inside scope"), place, run_words, part)
        _check_leak(contract, config, place / "leak")
        if ray:
            with contract.rule("Ray gives the weights of the inline engine"):
                other = configured(place, [*run_words, "engine=ray", "engine.workers=2"], part)
                with contextlib.closing(open_engine(other.engine)) as engine:
                    contract.equal(weights(run(other, place / "ray", engine)), weights(whole), "the same model file")


def _check_sides(contract: Contract, name: str, settings: Mapping[str, object]) -> None:
    check_yaml(contract, "strategy", name)
    with contract.rule("server side, client side and contract have the same name and agree on settings"):
        declared = registry.build("contract", name)
        contract.equal(declared.name, name, "the contract's name")
        registry.check_args("strategy", name, dict(settings), given=("inner",))
        server, client = registry.parameters("strategy", name), registry.parameters("client", name)
        for key in client.keys() & server.keys():
            contract.equal(client[key].default, server[key].default, f"the client side's default of {key}")
    with contract.rule("its contract describes what leaves"):
        records = [*declared.train, *(record for query in declared.queries.values() for record in query)]
        for record in records:
            contract.expect(record.key.startswith("x."), "a key that starts with x.", record.key)
            contract.expect(record.content.strip(), f"a description of {record.key}", repr(record.content))
            contract.equal(declaration_fault(record), "", "the declared values")
        for query in declared.queries:
            contract.expect(query.isidentifier(), "a query's name that is an identifier", query)


def _finite(result: RunResult) -> bool:
    files = model_files(result)
    return bool(files) and all(np.isfinite(array).all() for file in files for array in load_file(file).values())


def _check_parts(contract: Contract, result: RunResult, trained: Mapping[int, Mapping[int, str]]) -> None:
    """Check that rounds on other rows or labels are of another part than those before (`RunContext.next_part`)."""
    parts, now = {}, 0.0
    for line in RunFolder(result.folder).metrics():
        parts[line["step"]] = now = line["metrics"].get(PART, now)
    with contract.rule("where clients go on with other rows or labels, a new part of the training begins"):
        for client, rounds in trained.items():
            for before, after in itertools.pairwise(sorted(rounds)):
                if rounds[before] != rounds[after] and before in parts and after in parts:
                    expected = f"run.next_part() before round {after}, in which client {client} trains on other rows"
                    contract.expect(parts[before] != parts[after], expected, f"part {parts[after]:g} still")


def _check_case(contract: Contract, config: RunConfig, place: Path) -> None:
    """Check that it runs, or is refused before a run folder is created."""
    with contract.rule("it runs, or is refused before work"):
        try:
            contract.expect(_finite(run(config, place)), "finite weights", "NaN or infinity")
        except (ConfigError, DataError) as error:
            contract.expect(not list(place.glob("*/*")), "a refusal before a run folder is created", error)
            contract.expect("\n" not in str(error), "a refusal in one line", error)


def _check_inside(
    contract: Contract, place: Path, words: Sequence[str], part: Mapping[str, tuple[str, Mapping[str, object]]]
) -> None:
    """Check it inside a method that trains first: its hooks are called for rounds before its own program begins."""
    try:
        config = configured(place, words, part, around=_TRAINS_FIRST)
    except ConfigError:  # the two do not go together
        return
    _check_case(contract, config, place / "inside")


def _check_leak(contract: Contract, config: RunConfig, place: Path) -> None:
    handle = ClientRuntime.handle

    def leaking(self: ClientRuntime, message: Message, client: int) -> Message:
        reply = handle(self, message, client)
        if not reply.has_error():
            reply.content["x.undeclared"] = ConfigRecord({"patient": "Ada"})
        return reply

    ClientRuntime.handle = leaking  # type: ignore[method-assign]
    try:
        rule = contract.rule("a record its contract does not declare does not leave a client")
        with rule, contract.refuses(RunFailed, "x.undeclared"):
            run(config, place)
    finally:
        ClientRuntime.handle = handle  # type: ignore[method-assign]
