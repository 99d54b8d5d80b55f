"""The Flower entry point of the server: fedimb's one loop over whatever Grid Flower hands it.

`fedimb run engine=flower` names a run folder it has prepared; a bare ``flwr run`` gives ``overrides`` instead:
``flwr run . --run-config 'overrides="loss=balanced_softmax seed=3"'``, and has the result printed in Flower's log.
"""

import shlex
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedimb.engine.flower_grid import FlowerEngine
from fedimb.run.launch import go_on, launch

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configuration of the run config to its end; an exception fails the Flower run."""
    folder = str(context.run_config["run-dir"])
    if folder and (Path(folder) / "deployed.json").is_file():
        from fedimb.deploy.serve import serve

        serve(Path(folder), grid)
        return
    if folder:
        go_on(Path(folder), FlowerEngine(grid))
        return
    from fedimb.cli.panel import panels
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    words = shlex.split(str(context.run_config["overrides"]))
    print(panels(launch(validate(compose([*words, "engine=flower"])), FlowerEngine(grid))), flush=True)
