"""What the loop saves: one checkpoint file, step results, metric lines, in an order that survives kill -9.

Order of writing: client state (during a step) -> step result -> metric lines -> checkpoint -> seal -> MLflow. Whatever
was written after the last checkpoint is either overwritten by the repeated step (same names) or cut off (metrics). If
the last checkpoint, or something that only it builds on, is damaged, the one before is used in the same way.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedimb.atomic import write_atomic
from fedimb.clientapp.state import StateStore
from fedimb.contracts.platform import PART, SERVER_STEPS
from fedimb.engine.lanes import LaneOutcome
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.records import Arrays, pack, unpack
from fedimb.rundir.arrival_journal import remove_replies
from fedimb.rundir.checkpoints import Checkpoints
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.aggregator import Aggregator, chain
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.loop import Loop
from fedimb.serverapp.monitor import ALARM, RESET, Monitor
from fedimb.serverapp.old_state import state_of_snapshot
from fedimb.serverapp.state_dict import decode, encode, load_state, wrapped
from fedimb.serverapp.state_watch import StateWatch, beside
from fedimb.serverapp.steps import Step, step_name

Evaluate = Callable[[Arrays, Arrays, np.ndarray | None, LaneOutcome | None], dict[str, dict[str, float]]]
"""(parameters, buffers, class counts, outcome) -> metrics by row label."""


class FolderCheckpointer:
    """Saves a loop's state in a run folder.

    Args:
        folder: the locked run folder.
        evaluate: function that scores the global model, one dict of metrics per row.
        rows: row labels, so that rounds without evaluation are logged too.
        evaluate_every, checkpoint_every: in rounds; the last round of a Rounds step always counts.
        last_k: scored rounds behind a summary score.
        sent: function called after each checkpoint (MLflow, progress) with the loop and the round's metrics by row.
        tested: the server's test rows of each class, if it has any.
    """

    def __init__(
        self,
        folder: RunFolder,
        evaluate: Evaluate,
        rows: list[str],
        evaluate_every: int,
        checkpoint_every: int,
        last_k: int,
        sent: Callable[[Loop, dict[str, dict[str, float]]], None],
        tested: Sequence[int] = (),
    ) -> None:
        self.folder, self._evaluate, self._rows = folder, evaluate, rows
        self._evaluate_every, self._checkpoint_every, self._sent = evaluate_every, checkpoint_every, sent
        self._pending: list[JsonObject] = []
        self._metrics_size = 0
        self._watch = StateWatch()
        self._saved = Checkpoints(folder, self._check_states)
        self._last_k, self._tested, self._monitor = last_k, tested, Monitor(last_k, (), tested)

    def _check_states(self, versions: Mapping[int, int]) -> None:
        """Raise StateLost if a simulated client's state cannot be loaded; sites of a deployment keep their own."""
        if not self.folder.is_deployed:
            store = StateStore(self.folder.path / "clients")
            for client, version in versions.items():
                store.check(client, version)

    def event(self, **event: Any) -> None:
        """Append to journal.jsonl."""
        self.folder.journal(**event)

    def before_step(self, loop: Loop, step: Step) -> None:
        """Record the state of methods and aggregators; refuse state that cannot be saved.

        Raises:
            RunFailed: a state dict holds a value that cannot be saved.
        """
        owners = _owners(loop)
        for owner in owners:
            encode(owner)
        self._watch.start_step(owners, step_name(step), lambda: beside(step, loop.context))

    @staticmethod
    def _result_file(index: int) -> str:
        return f"steps/{index:04d}.safetensors"

    def save_result(self, index: int, result: RecordDict) -> None:
        """Write ``steps/<index>.safetensors`` atomically."""
        data = pack(result)
        write_atomic(self.folder.path / self._result_file(index), data)
        self._saved.seal_file(self._result_file(index), hashlib.sha256(data).hexdigest())

    def load_result(self, index: int) -> RecordDict:
        """Read a step's result. Raises FedimbError if the file is missing or not as it was written."""
        name = self._result_file(index)
        data = self.folder.read(name)
        if data is None:
            raise FedimbError(
                f"{self.folder.path / name} is missing, so the run folder is incomplete; "
                "restore the file or start a new run"
            )
        return unpack(data)

    def fall_back(self, why: str) -> str:
        """Put the last checkpoint aside, as something it builds on is lost; returns what a resume does, in words."""
        return self._saved.fall_back(why)

    def seal_end(self) -> None:
        """Seal the result and the artifacts of a run that has ended; single clients' replies are not kept."""
        self._saved.seal_end()
        remove_replies(self.folder.path)

    def after_round(self, loop: Loop, metrics: dict[str, float], last: bool) -> None:
        """Evaluate if due, queue the round's lines, checkpoint if due."""
        server_round = loop.progress.server_round
        metrics = metrics | loop.exchange.traffic.drain()
        if loop.progress.resets > self._monitor.resets():
            metrics[RESET] = float(loop.progress.resets)
        if loop.progress.server_steps:
            metrics[SERVER_STEPS] = float(loop.progress.server_steps)
        if loop.context.part:
            metrics[PART] = float(loop.context.part)
        scores: dict[str, dict[str, float]] = {row: {} for row in self._rows}
        final = loop.context.final
        if final in loop.models and (last or server_round % self._evaluate_every == 0):
            model = loop.models[final]
            scores = self._evaluate(model.parameters, model.buffers, loop.context.counts, loop.rounds.last_outcome)
        now = int(time.time() * 1000)
        by_row = {row: metrics | scores[row] for row in self._rows}
        for row, values in by_row.items():
            clean = {k: (float(v) if np.isfinite(v) else None) for k, v in values.items()}
            self._pending.append({"row": row, "step": server_round, "time": now, "metrics": clean})
            self._monitor.observe(self._pending[-1])
            if alarms := self._monitor.alarms(row):
                clean[ALARM] = values[ALARM] = float(len(alarms))
        self._monitor.warn(server_round)
        if last or server_round % self._checkpoint_every == 0:
            self.checkpoint(loop)
        self._sent(loop, by_row)

    def checkpoint(self, loop: Loop) -> None:
        """Write metric lines, then the checkpoint, which records how many bytes of them are valid.

        Raises:
            RunFailed: something changed during the step that is not in a state dict.
        """
        self._watch.check(_owners(loop))
        if self._pending:
            self._metrics_size = self.folder.append_metrics(self._pending)
            self._pending = []
        arrays: Arrays = {}
        models: JsonObject = {}
        for name, model in loop.models.items():
            arrays.update({f"model/{name}/p/{k}": v for k, v in model.parameters.items()})
            arrays.update({f"model/{name}/b/{k}": v for k, v in model.buffers.items()})
            models[name], own = encode(model.state_owner)
            arrays.update({f"aggregator/{name}/{k}": v for k, v in own.items()})
        methods = []
        for depth, method in enumerate(chain(loop.method)[:-1]):
            spec, own = encode(method)
            arrays.update({f"method/{depth}/{k}": v for k, v in own.items()})
            methods.append(spec)
        exchange = loop.exchange
        for name, said in vars(exchange.told).items():
            if said:
                arrays |= {
                    f"told/{name}/clients": np.array(list(said)),
                    f"told/{name}/rows": np.stack(list(said.values())),
                }
        in_flight, pending = loop.pending.state()
        arrays |= {f"pending/{k}": v for k, v in in_flight.items()}
        arrays |= {f"arrivals/{k}": v for k, v in loop.arrivals.state().items()}
        info = {
            "state_dicts": {"methods": methods, "models": models},
            "progress": asdict(loop.progress),
            "message": exchange.versions.message,
            "versions": exchange.versions.current,
            "errors": exchange.errors,
            "traffic": {
                "up": dict(exchange.traffic.up),
                "down": dict(exchange.traffic.down),
                "total_up": exchange.traffic.total_up,
                "total_down": exchange.traffic.total_down,
            },
            "metrics_size": self._metrics_size,
            "pending": pending,
        }
        if loop.live is not None:
            open_, info["live"] = loop.live.state()
            arrays |= {f"live/{k}": v for k, v in open_.items()}
        self._saved.write(arrays, info)
        if loop.live is not None:
            loop.live.forget()
        exchange.versions.commit()

    def restore(self, loop: Loop) -> bool:
        """Set a new loop to the state of the newest checkpoint that can be used; returns False if the run has none.

        Raises:
            Damaged: there are checkpoints, but none that can be used.
        """
        saved = self._saved.restore()
        if saved is None:
            self.folder.truncate_metrics(0)
            return False
        arrays, info = saved.arrays, saved.info
        loop.progress.load(info["progress"])

        methods = chain(loop.method)[:-1]
        if "state_dicts" in info:
            specs, models = info["state_dicts"]["methods"], info["state_dicts"]["models"]
            states = [decode(spec, _below(arrays, f"method/{depth}/")) for depth, spec in enumerate(specs)]
            of_models = {name: decode(spec, _below(arrays, f"aggregator/{name}/")) for name, spec in models.items()}
        else:  # fedimb 0.1
            states = [
                state_of_snapshot(method, kinds, _below(arrays, f"method/{depth}/"))
                for depth, (method, kinds) in enumerate(zip(methods, info["methods"], strict=True))
            ]
            aggregator = chain(loop.method)[-1]
            of_models = {
                name: state_of_snapshot(aggregator, kinds, _below(arrays, f"aggregator/{name}/"))
                for name, kinds in info["aggregators"].items()
                if kinds  # an auxiliary model has only weights
            }

        def remember() -> None:
            for method, state in zip(methods, states, strict=True):
                load_state(method, state)

        loop.memory = remember
        for name in info["state_dicts"]["models"] if "state_dicts" in info else info["aggregators"]:
            loop.saved[name] = _Saved(name, arrays, of_models.get(name))
        exchange = loop.exchange
        exchange.versions.message = int(info["message"])
        exchange.versions.current = {int(k): int(v) for k, v in info["versions"].items()}
        exchange.versions.commit()
        exchange.errors = int(info["errors"])
        for name, said in vars(exchange.told).items():
            own = _below(arrays, f"told/{name}/")  # nothing in checkpoints of earlier releases
            said.update(zip(own["clients"].tolist(), own["rows"], strict=True) if own else ())
        loop.pending.load(_below(arrays, "pending/"), info.get("pending", {}))
        loop.arrivals.load(_below(arrays, "arrivals/"))
        if loop.live is not None:
            loop.live.load(_below(arrays, "live/"), info.get("live", {}))
        traffic = info["traffic"]
        exchange.traffic.up.update(traffic["up"])
        exchange.traffic.down.update(traffic["down"])
        exchange.traffic.total_up, exchange.traffic.total_down = traffic["total_up"], traffic["total_down"]
        self._metrics_size = int(info["metrics_size"])
        self.folder.truncate_metrics(self._metrics_size)
        self._monitor = Monitor(self._last_k, self.folder.metrics(), self._tested)
        return True


@dataclass(frozen=True)
class _Saved:
    """A model in the checkpoint, loaded into a newly built aggregator when the program first uses it."""

    name: str
    arrays: Arrays
    state: dict[str, Any] | None

    def __call__(self, model: Aggregator | AuxiliaryModel) -> None:
        arrays, name = self.arrays, self.name
        model.parameters = {k: arrays[f"model/{name}/p/{k}"] for k in model.parameters}
        model.buffers = {k: arrays[f"model/{name}/b/{k}"] for k in model.buffers}
        if self.state is not None:
            load_state(model.state_owner, self.state)


def _owners(loop: Loop) -> list[object]:
    """All objects with a state dict, each once: methods, aggregators, those in Flower's wrappers, auxiliary models."""
    found: dict[int, object] = {}
    strategies = [
        *chain(loop.method),
        *(s for m in loop.models.values() if isinstance(m, Aggregator) for s in m.strategies),
    ]
    for strategy in strategies:
        found |= {id(each): each for each in wrapped(strategy)}
    found |= {id(model): model for model in loop.models.values() if isinstance(model, AuxiliaryModel)}
    return list(found.values())


def _below(arrays: Arrays, prefix: str) -> Arrays:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
