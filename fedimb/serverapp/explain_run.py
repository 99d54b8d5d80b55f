"""Asks the simulated clients of a finished run to explain its model.

The messages, the egress filter and the checks of replies are those of a run.
"""

import numpy as np
from flwr.app import Message, RecordDict

from fedimb.config.load import to_json
from fedimb.config.validate import validate
from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.engine.grid import Job
from fedimb.engine.open import open_engine
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import buffers_of, parameters_of
from fedimb.plain import Settings
from fedimb.records import array_record, unpack_arrays
from fedimb.rundir.explanations import Facts
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import CHECKPOINT
from fedimb.rundir.stored import read_config, read_federation
from fedimb.schema import RunConfig
from fedimb.serverapp.assemble import admission_of
from fedimb.serverapp.attackers import attackers_in
from fedimb.serverapp.client_sampler import ClientSampler
from fedimb.serverapp.exchange import Exchange
from fedimb.serverapp.explanations import WITHHELD, check_explanations, combined
from fedimb.serverapp.left_out import LeftOut


def explain_run(result: RunResult, explanation: Settings) -> dict[str, Facts]:
    """Ask the simulated clients of a finished run to explain its model.

    Args:
        explanation: arguments by the name of the explanation.

    Raises:
        ConfigError: a run of a deployment; an explanation that does not fit its data.
        RunFailed: too few usable replies.
    """
    folder = RunFolder.open(result.folder)
    if folder.is_deployed:
        raise ConfigError(
            f"{folder.path} is a deployment's run, whose rows are at the sites: ask for explanations in its study plan "
            "(explanation=...), which the sites approve"
        )
    stored = read_config(folder)
    local = {"name": "inline", "trainer": stored.engine.get("trainer", "auto"), "device": "cpu"}
    config = validate(stored.model_dump() | {"explanation": explanation, "engine": local})
    federation = read_federation(folder)
    check_explanations(config, federation, federation.store.columns)
    model = result.model.classifier
    own = _exchange(folder, config, federation, model.head.in_features)
    content = RecordDict({names.ARRAYS: array_record(parameters_of(model))})
    attackers = attackers_in(config, federation)
    lying = set(attackers.clients) if attackers is not None else set()  # their rows explain nothing, as in a run
    clients = [int(client) for client in np.flatnonzero(federation.train_sizes) if int(client) not in lying]
    own.versions.message += 1
    instructions = [
        (client, Message(content, own.client_sampler.node(client), f"query.{names.EXPLAIN}")) for client in clients
    ]
    completed = own.complete(instructions, 0, buffers_of(model), None)
    outcome = own.send(names.EXPLAIN, completed, {}, False, "explain")
    found = combined(config, federation, {reply.client: reply.content for reply in outcome.replies if reply.usable})
    if not found:
        raise RunFailed(f"{folder.path}: no client sent an explanation: {WITHHELD}")
    return found


def _exchange(folder: RunFolder, config: RunConfig, federation: Federation, features: int) -> Exchange:
    """An exchange with the clients as they were at the end of the run."""
    job = Job(str(folder.path), to_json(config), config.clients.count)
    made = Exchange(
        open_engine(config.engine).grid(job),
        ClientSampler(config.clients, config.seed, federation.train_sizes),
        config.clients.min_reply_fraction,
        admission_of(config, federation, features),
        LeftOut(),
    )
    data = folder.read(CHECKPOINT)
    if data is not None:
        _, info = unpack_arrays(data)
        made.versions.message = int(info["message"])
        made.versions.current = {int(client): int(version) for client, version in info["versions"].items()}
        made.versions.commit()
    return made
