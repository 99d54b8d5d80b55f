"""The coordinator's ServerApp: executes a deployed run on the sites that Flower's Grid reaches."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedimb.deploy.coordinator.region import is_region, serve_region
from fedimb.deploy.coordinator.serve import serve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Execute the run folder that ``fedimb deploy run`` made, or answer a region's root with one of ``fedimb region
    run``. An exception fails the Flower run.
    """
    folder = Path(str(context.run_config["run-dir"]))
    if is_region(folder):
        serve_region(folder, grid)
    else:
        serve(folder, grid)
