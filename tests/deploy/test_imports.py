"""A node has only what a node needs: nothing of the simulation may be loaded there. Asked of fresh processes."""

import pkgutil
import subprocess
import sys

import pytest

import fedimb.cli.node

HEAVY = ("ray", "mlflow", "hydra", "omegaconf", "diffusers")


def loaded(imports: str) -> set[str]:
    """Which of the heavy packages ``import imports`` loads, and torch."""
    script = f"import sys\nimport {imports}\nprint(*(m for m in {(*HEAVY, 'torch')!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_the_client_app_and_every_verb_of_a_node() -> None:
    verbs = [f"fedimb.cli.node.{found.name}" for found in pkgutil.iter_modules(fedimb.cli.node.__path__)]
    parts = ["bundle_hash", "guard", "supernode", "supervisor", "observe", "status", "limits", "check", "inbox"]
    assert "fedimb.cli.node.run" in verbs
    assert loaded(", ".join(["fedimb.clientapp.app", *verbs, *(f"fedimb.deploy.{part}" for part in parts)])) == {
        "torch"
    }


def test_the_long_lived_process_of_a_node_is_light() -> None:
    """The supervisor runs for months: not even torch."""
    assert loaded("fedimb.deploy.site.supervisor, fedimb.cli.node.run, fedimb.cli.node.status") == set()
