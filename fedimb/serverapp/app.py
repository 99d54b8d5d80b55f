"""The ServerApp of engine=flower and of a bare ``flwr run``: fedimb's one loop over the Grid that Flower hands it.

`fedimb run engine=flower` names a run folder it has prepared; a bare ``flwr run`` gives ``overrides`` instead:
``flwr run . --run-config 'overrides="loss=balanced_softmax seed=3"'``, and finds the result in Flower's log.
"""

import shlex
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.engine.flower_grid import FlowerEngine
from fedimb.serverapp.launch import go_on, launch

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configuration of the run config to its end; an exception fails the Flower run."""
    if folder := str(context.run_config["run-dir"]):
        go_on(Path(folder), FlowerEngine(grid))
        return
    words = shlex.split(str(context.run_config["overrides"]))
    result = launch(validate(compose([*words, "engine=flower"])), FlowerEngine(grid))
    print(result.summary(), flush=True)
