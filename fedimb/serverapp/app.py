"""The ServerApp of engine=flower and of a plain ``flwr run``: fedimb's loop over the Grid that Flower passes in.

`fedimb run engine=flower` names a run folder it has prepared; a plain ``flwr run`` gives ``overrides`` instead,
``flwr run . --run-config 'overrides="loss=balanced_softmax seed=3"'``, and the result is in Flower's log.
"""

import shlex
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.engine.flower_grid import FlowerEngine
from fedimb.serverapp.launch import launch, run_in_server_app

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configuration given in the run config; an exception fails the Flower run."""
    if folder := str(context.run_config["run-dir"]):
        run_in_server_app(Path(folder), FlowerEngine(grid))
        return
    words = shlex.split(str(context.run_config["overrides"]))
    result = launch(validate(compose([*words, "engine=flower"])), FlowerEngine(grid))
    print(result.summary(), flush=True)
    result.raise_if_refused()
