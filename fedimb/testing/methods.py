"""The contract of a method: a run of it survives everything a run may meet, and sends what it declares and no more."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedimb import registry
from fedimb.clientapp.local_training import LocalTraining
from fedimb.engine.open import open_engine
from fedimb.errors import ConfigError, DataError, RunFailed
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig
from fedimb.testing.expectations import Contract, check_yaml
from fedimb.testing.runs import compare, configured, run, run_killed, small_tables, weights


def check_method(name: str, *, run_words: Sequence[str] = (), ray: bool = True, **settings: Any) -> None:
    """A method runs in the smallest federation, and what interrupts or surprises a run does not change its result.

    It is killed after every step and resumed to the same weights, with every item of the server's, the aggregator's and
    the clients' state as it was; Ray gives the weights of the inline engine; a client of one row, a client that lacks a
    class, a class that nobody holds and a federation of one client are run, or refused before work; a record that its
    contract does not declare does not leave a client.

    Args:
        name: as registered under the kinds ``strategy``, ``client`` and ``contract``.
        run_words: further words of the runs, as on the command line: ``"rounds=6"``, ``"data.public=3"``.
        ray: False leaves out the comparison of engines: it takes seconds, and Ray knows installed methods alone.
        settings: of the method, in the place of what its YAML sets.

    Raises:
        ContractError: the rule it breaks, what was expected and what came.
    """
    contract = Contract("strategy", name)
    _check_halves(contract, name, settings)
    part = {"strategy": (name, settings)}
    with small_tables() as place:
        with contract.rule("it runs with a client of one row and one that lacks a class"):
            config = configured(place, run_words, part)
            whole = run(config, place / "whole")
            contract.expect(_finite(whole), "finite weights", "NaN or infinity")
        with contract.rule("killed after every step and resumed, it ends with the same weights and state"):
            again, deaths = run_killed(config, place / "killed")
            contract.expect(deaths >= 2, "at least two checkpoints to be killed after", deaths)
            compare(contract, again, whole)
        with contract.rule("the same run again gives the same weights"):
            contract.equal(weights(run(config, place / "again")), weights(whole), "the same model file")
        for case, more in (("a class that nobody holds", {"absent": True}), ("one client", {"clients": 1})):
            _check_case(Contract("strategy", name, case), configured(place, run_words, part, **more), place / case)
        _check_leak(contract, config, place / "leak")
        if ray:
            with contract.rule("Ray gives the weights of the inline engine"):
                other = configured(place, [*run_words, "engine=ray", "engine.workers=2"], part)
                with contextlib.closing(open_engine(other.engine)) as engine:
                    contract.equal(weights(run(other, place / "ray", engine)), weights(whole), "the same model file")


def _check_halves(contract: Contract, name: str, settings: Mapping[str, Any]) -> None:
    check_yaml(contract, "strategy", name)
    with contract.rule("its halves and their contract have one name and agree on settings"):
        declared = registry.build("contract", name)
        contract.equal(declared.name, name, "the contract's name")
        registry.check_args("strategy", name, dict(settings), given=("inner",))
        server, client = registry.parameters("strategy", name), registry.parameters("client", name)
        for key in client.keys() & server.keys():
            contract.equal(client[key].default, server[key].default, f"the client half's default of {key}")
    with contract.rule("its contract declares what leaves, in words"):
        records = [*declared.train, *(record for query in declared.queries.values() for record in query)]
        for record in records:
            contract.expect(record.key.startswith("x."), "a key that starts with x.", record.key)
            contract.expect(record.content.strip(), f"words about {record.key}", repr(record.content))
        for query in declared.queries:
            contract.expect(query.isidentifier(), "a query's name that is an identifier", query)


def _finite(result: RunResult) -> bool:
    return all(np.isfinite(p.detach().numpy()).all() for p in result.model.parameters())


def _check_case(contract: Contract, config: RunConfig, place: Path) -> None:
    """It runs, or is refused before there is a run folder."""
    with contract.rule("it runs, or is refused before work"):
        try:
            contract.expect(_finite(run(config, place)), "finite weights", "NaN or infinity")
        except (ConfigError, DataError) as error:
            contract.expect(not list(place.glob("*/*")), "a refusal before there is a run folder", error)
            contract.expect("\n" not in str(error), "a refusal in one line", error)


def _check_leak(contract: Contract, config: RunConfig, place: Path) -> None:
    reply = LocalTraining.reply

    def leaking(self: LocalTraining, prepared: Any, result: Any) -> RecordDict:
        content = reply(self, prepared, result)
        content["x.undeclared"] = ConfigRecord({"patient": "Ada"})
        return content

    LocalTraining.reply = leaking  # type: ignore[method-assign]
    try:
        rule = contract.rule("a record its contract does not declare does not leave a client")
        with rule, contract.refuses(RunFailed, "x.undeclared"):
            run(config, place)
    finally:
        LocalTraining.reply = reply  # type: ignore[method-assign]
