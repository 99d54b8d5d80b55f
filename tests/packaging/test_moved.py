"""Import paths of fedimb 0.1 work for one release, say where the module lies now, and hide nothing."""

import ast
import importlib
import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from source_imports import ROOT

from fedimb._moved import MOVED, RENAMED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_every_old_path_leads_to_a_module_that_exists(old: str) -> None:
    assert importlib.util.find_spec(f"fedimb.{MOVED[old]}") is not None


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("run.steps", "Query", "serverapp.steps"),
        ("run.context", "ClientContext", "clientapp.context"),
        ("run.launch", "launch", "serverapp.launch"),
        ("config.schema", "RunConfig", "schema"),
        ("run.parts", "build_model", "config.parts"),
        ("privacy.outbox.box", "Outbox", "generation.outbox.box"),
    ],
)
def test_an_old_path_is_the_new_module_and_the_warning_names_it(old: str, name: str, new: str) -> None:
    sys.modules.pop(f"fedimb.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"has moved to fedimb.{new};"):
        module = importlib.import_module(f"fedimb.{old}")
    assert getattr(module, name) is getattr(importlib.import_module(f"fedimb.{new}"), name)


@pytest.mark.parametrize(
    "old",
    [
        "run.view.RunView",  # in a module that moved
        "training.terms.base.LocalTerm",
        "generation.workshop.Recipe",
        "run.priors.noisy_share",  # moved apart from its module
        "engine.lanes.Answer",  # in a module that did not move
        "engine.lanes.cut",
        "data.paths.find",
        "deploy.joining.add_site",
        "strategies.fedssg.rarest",
    ],
)
def test_an_old_name_is_the_new_object_and_the_warning_gives_its_name(old: str) -> None:
    (place, _, name), (new_place, _, new) = old.rpartition("."), RENAMED[old].rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module(f"fedimb.{place}")
    with pytest.warns(DeprecationWarning, match=f"fedimb.{old} is fedimb.{RENAMED[old]} now") as caught:
        found = getattr(module, name)
    assert found is getattr(importlib.import_module(f"fedimb.{new_place}"), new)
    assert caught[0].filename == __file__


def test_a_name_that_was_not_renamed_is_an_ordinary_error() -> None:
    from fedimb.engine import lanes

    with pytest.raises(AttributeError, match=r"^module 'fedimb\.engine\.lanes' has no attribute 'Cut'$"):
        _ = lanes.Cut  # type: ignore[attr-defined]
    assert not hasattr(importlib.import_module("fedimb.study.work"), "PrefetchedReply")
    assert lanes.__spec__ is not None
    assert inspect.getsource(lanes).startswith('"""Lanes')


NO_SUCCESSOR = {
    "deploy.data_checks": {"refuse_unfit"},  # a node's join asks `data_checks` itself
    "run.aggregator": {"snapshot", "restore"},  # state_dict and load_state_dict
    "run.rounds": {"train_round"},  # a method of Loop
}
"""Names of 0.1 that lead nowhere: what they did is done by something of another kind."""


def defined(module: str) -> set[str]:
    """Names at the top of a module of the package, imported ones included."""
    path = ROOT / "fedimb" / module.replace(".", "/")
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body if file.exists() else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_public_class_and_function_of_0_1_leads_somewhere() -> None:
    lost = []
    for line in (Path(__file__).parent / "names_of_0_1.txt").read_text().splitlines():
        module, _, names = line.partition(": ")
        if module.startswith("cli."):  # the command line's own modules: its interface is the verbs
            continue
        here = defined(MOVED.get(module, module))
        wanted = set(names.split()) - NO_SUCCESSOR.get(module, set())
        lost += [f"{module}.{name}" for name in sorted(wanted - here) if f"{module}.{name}" not in RENAMED]
    assert lost == []


def test_every_renamed_name_leads_to_one_that_exists_and_hides_none() -> None:
    for old, new in RENAMED.items():
        place, _, name = new.rpartition(".")
        assert name in defined(place), new
        place, _, name = old.rpartition(".")
        assert place in MOVED or name not in defined(place), f"{old} is also a name of today"


@pytest.mark.slow
def test_the_old_package_run_does_not_hide_the_function() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import fedimb\nassert callable(fedimb.run)\n"
        "from fedimb.run.steps import Query\nimport fedimb.run.view\n"
        "assert callable(fedimb.run)\n"
        "try:\n    fedimb.run('seed=nonsense')\nexcept Exception as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "ConfigError", done.stderr


def test_a_name_that_never_was_is_still_an_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("fedimb.run.nothing")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("fedimb.attic")
