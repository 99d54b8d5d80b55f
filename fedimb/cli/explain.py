"""``fedimb explain``: asks a finished run's clients why its model says what it says."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR, add_trust

if TYPE_CHECKING:
    from fedimb.cli.output.runs import RunExplained
    from fedimb.cli.verbs import Verbs
    from fedimb.rundir.result import RunResult

_ABOUT = """\
Ask the simulated clients of a finished run why its model says what it says. Each client explains its own rows; only
means over classes with enough people (floor, 10) leave it, through the same filter as in a deployment. What is about
single rows stays in the client's folder, RUN/clients/client-*/explanations.

  fedimb explain fedavg-s0                                      what suits the data (see below)
  fedimb explain fedavg-s0 grad_cam integrated_gradients        these
  fedimb explain fedavg-s0 what_if what_if.to=ill what_if.fixed=[age]
  fedimb explain fedavg-s0 lime lime.floor=20 lime.samples=400

Without a name: those of the run's configuration; else integrated_gradients, for a table also surrogate_tree and
what_if, for a model of convolutions grad_cam. `fedimb list explanations` has all of them, docs/explain.md what each
says and what leaves a client. Reports and model cards show what was found. A run asks by itself with
explanation=[NAME,...]; at hospitals this is the only way, since the sites approve it with the study plan."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    explain = verbs.add_parser("explain", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    explain.add_argument("run", metavar="RUN", help="folder, name, or the beginning of a name")
    explain.add_argument("words", nargs="*", metavar="NAME|NAME.key=value", help="explanations and their settings")
    explain.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    add_trust(explain)
    explain.set_defaults(handler=explain_command)


def explain_command(args: argparse.Namespace) -> "RunExplained":
    """``fedimb explain``."""
    import sys

    from fedimb.cli.find import find_run
    from fedimb.cli.output.runs import ExplanationFound, RunExplained
    from fedimb.registry.targets import trusted
    from fedimb.report.explanations import explanation_lines
    from fedimb.rundir.explanations import write_explanation
    from fedimb.rundir.folder import RunFolder
    from fedimb.rundir.result import RunResult
    from fedimb.serverapp.explain_run import explain_run

    result = RunResult.read(find_run(args.run, args.output_dir))
    with trusted(args.trust):
        found = explain_run(result, _asked(args.words, result))
    folder = RunFolder.open(result.folder)
    files = {name: write_explanation(folder, name, facts) for name, facts in found.items()}
    if not args.json:
        print("\n".join(explanation_lines(found)))
        print(f"\nfiles       {folder.path / 'explanations'}\nreport      fedimb report {folder.path}")
    for name, facts in found.items():
        if not facts.get("sanity", {}).get("passed", True):
            print(f"fedimb: {name} failed its sanity check: do not read its maps", file=sys.stderr)
    return RunExplained(
        folder=str(folder.path),
        explanations=[
            ExplanationFound(
                name=name,
                file=str(files[name]),
                rows=dict(zip(facts["class_names"], facts["rows"], strict=True)),
                sanity_passed=facts["sanity"]["passed"] if "sanity" in facts else None,
                fidelity=facts.get("fidelity"),
            )
            for name, facts in found.items()
        ],
    )


def _asked(words: list[str], result: "RunResult") -> dict[str, dict[str, object]]:
    """The explanations that the words name, with their settings."""
    from fedimb.config.compose import compose
    from fedimb.errors import ConfigError
    from fedimb.rundir.folder import RunFolder
    from fedimb.rundir.stored import read_config

    names = list(dict.fromkeys(word for word in words if "=" not in word))
    settings = [word for word in words if "=" in word]
    if "none" in names:
        raise ConfigError("explanation 'none' explains nothing: name others, or give no name")
    if names:
        composed = compose([f"explanation=[{','.join(names)}]", *(f"explanation.{word}" for word in settings)])
        asked: dict[str, dict[str, object]] = composed["explanation"]
        return asked
    if settings:
        raise ConfigError(f"{settings[0]}: name the explanation first: fedimb explain RUN NAME {settings[0]}")
    own = {n: args for n, args in read_config(RunFolder.open(result.folder)).explanation.items() if n != "none"}
    return own or _asked(suitable(result), result)


def suitable(result: "RunResult") -> list[str]:
    """Names of explanations that suit a run's data and model."""
    from torch import nn

    model = result.model
    if len(model.input_shape) == 1:
        one_class = result.task == "multiclass"
        return ["integrated_gradients", *(["surrogate_tree", "what_if"] if one_class else [])]
    convolutions = any(isinstance(module, nn.Conv1d | nn.Conv2d) for module in model.modules())
    return [*(["grad_cam"] if convolutions else []), "integrated_gradients"]
