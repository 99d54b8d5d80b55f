"""Trains a run without one of its folds, in a folder inside the run's: ``folds/0``, ``folds/1``, ...

Each is checkpointed like a run of its own: after a kill it goes on where it was, and if it had ended its steps are only
replayed.
"""

import json
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.config.load import to_json
from fedimb.data.federation import Federation
from fedimb.engine.grid import Job
from fedimb.engine.inline import InlineEngine
from fedimb.engine.open import Engine
from fedimb.errors import FedimbError, RunDiverged, RunFailed
from fedimb.rundir.checkpoints import fixed_hashes
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import SEAL, Manifest, write_seal
from fedimb.schema import RunConfig
from fedimb.serverapp.assemble import build_loop
from fedimb.serverapp.finish import cost
from fedimb.serverapp.progress import ProgressBar
from fedimb.serverapp.temperature import FoldRun, RunFold
from fedimb.tracking.mlflow import NoTracker

FOLDER = "folds"


def folds_on(folder: RunFolder, engine: Engine) -> RunFold:
    """The function that trains without a fold.

    Args:
        folder: of the run whose folds these are.
        engine: the run's; one that serves this run alone is not used, and the clients are in this process.
    """

    def run(number: int, config: RunConfig, federation: Federation) -> FoldRun:
        try:
            return _train(folder.path / FOLDER / str(number), config, federation, engine)
        except RunDiverged as error:  # not the run: its rows at other strengths may be right
            raise RunFailed(
                f"training without fold {number} diverged: {error}; lower the learning rate, or give tau as a number"
            ) from error
        except FedimbError as error:
            raise RunFailed(f"training without fold {number}: {error}") from error

    return run


def _train(path: Path, config: RunConfig, federation: Federation, engine: Engine) -> FoldRun:
    folder = _written(path, config, federation)
    job = Job(str(path.absolute()), (path / "config.json").read_text(), config.clients.count)
    own = engine if engine.reusable else InlineEngine()
    quiet = ProgressBar(config.rounds, enabled=False)
    loop, checkpointer, evaluator = build_loop(folder, config, federation, own.grid(job), NoTracker(), quiet)
    checkpointer.restore(loop)
    loop.run()
    losses = evaluator.held_out
    assert losses is not None
    model, traffic = loop.model(), loop.exchange.traffic
    spent = cost(folder, next(iter(evaluator.labels)), federation)
    return FoldRun(
        *losses,
        {**model.parameters, **model.buffers},
        {
            "up_bytes": float(traffic.total_up),
            "down_bytes": float(traffic.total_down),
            "steps": float(spent["steps"]),
            "server_steps": float(spent["server_steps"]),
            "client_seconds": float(spent["client_seconds"]),
        },
    )


def _written(path: Path, config: RunConfig, federation: Federation) -> RunFolder:
    """The fold's folder with what clients read of it; the seal is written last, so a folder with one is complete."""
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    if not (path / SEAL).exists():
        write_atomic(path / "config.json", to_json(config).encode())
        federation.save(path)
        (path / "artifacts").mkdir(exist_ok=True)
        write_seal(path, Manifest(files=fixed_hashes(path)))
    elif json.loads((path / "config.json").read_text()) != json.loads(to_json(config)):
        raise RunFailed(f"{path} belongs to another configuration; remove it and resume")
    return folder
