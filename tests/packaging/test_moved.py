"""Import paths of fedimb 0.1 work for one release, say where the module lies now, and hide nothing."""

import importlib
import subprocess
import sys

import pytest

from fedimb._moved import MOVED, RENAMED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_every_old_path_leads_to_a_module_that_exists(old: str) -> None:
    assert importlib.util.find_spec(f"fedimb.{MOVED[old]}") is not None


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("run.steps", "Query", "serverapp.steps"),
        ("run.view", "RunView", "serverapp.context"),
        ("run.context", "ClientContext", "clientapp.context"),
        ("run.launch", "launch", "serverapp.launch"),
        ("config.schema", "RunConfig", "schema"),
        ("run.parts", "build_model", "config.parts"),
        ("training.terms.base", "LocalTerm", "training.objectives.base"),
        ("privacy.outbox.box", "Outbox", "generation.outbox.box"),
        ("generation.workshop", "Recipe", "generation.generator_cache"),
    ],
)
def test_an_old_name_is_the_new_object_and_the_warning_names_its_place(old: str, name: str, new: str) -> None:
    sys.modules.pop(f"fedimb.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"has moved to fedimb.{new};"):
        module = importlib.import_module(f"fedimb.{old}")
    assert getattr(module, name) is getattr(importlib.import_module(f"fedimb.{new}"), RENAMED.get(name, name))


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
