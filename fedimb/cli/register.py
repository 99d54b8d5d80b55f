"""``fedimb register``: puts a finished run's model into MLflow's model registry."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR

if TYPE_CHECKING:
    from fedimb.cli.output.runs import ModelRegistered
    from fedimb.cli.verbs import Verbs
    from fedimb.rundir.result import RunResult

_ABOUT = """\
Put the model of a finished run into MLflow's model registry, with its card and its signature. Loaded with
mlflow.pyfunc.load_model, it predicts what `fedimb predict` does for the same rows.

  fedimb register fedavg-s0 digits-rare
  fedimb register la_post-s0 digits-rare --calibration la_post
  fedimb register fedavg-s0 digits-rare --uri http://mlflow.example.org:5000

Registering the same model again changes nothing."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    verb = verbs.add_parser("register", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    verb.add_argument("run", metavar="RUN", help="folder, name, or the beginning of a name")
    verb.add_argument("name", metavar="NAME", help="name of the registered model; a known name gets a new version")
    verb.add_argument("--calibration", metavar="NAME", help="one of the run's calibrations (default: its first)")
    verb.add_argument("--uri", metavar="URI", help="MLflow database or server (default: where the run is tracked)")
    verb.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    verb.set_defaults(handler=register_command)


def register_command(args: argparse.Namespace) -> "ModelRegistered":
    """``fedimb register``. Raises FedimbError when the run is not finished or MLflow cannot be used."""
    from fedimb.cli.find import find_run
    from fedimb.cli.output.runs import ModelRegistered
    from fedimb.rundir.result import RunResult
    from fedimb.tracking import registered_model
    from fedimb.tracking.store import shown

    result = RunResult.read(find_run(args.run, args.output_dir))
    card = _card(result, args.calibration)
    if result.suspect:
        print(f"fedimb: the run is suspect: {result.suspect}", file=sys.stderr)
    version, address, uri = registered_model.register(result, args.name, card, args.calibration, args.uri)
    print(f"{args.name}, version {version}, in MLflow at {shown(uri)}")
    print(f"load it with  mlflow.set_tracking_uri({shown(uri)!r}); mlflow.pyfunc.load_model({address!r})")
    return ModelRegistered(name=args.name, version=version, address=address, uri=shown(uri), folder=str(result.folder))


def _card(result: "RunResult", calibration: str | None) -> str:
    """The card that `fedimb predict` writes beside scores of the run's test set."""
    import tempfile

    from fedimb.cli.card import model_card
    from fedimb.cli.scoring import Options, score_to

    with tempfile.TemporaryDirectory() as folder:
        scored = score_to(result, None, Path(folder) / "scores.csv", Options(calibration=calibration))
    return model_card(result, scored)
