"""A node has only what a node needs: nothing of the simulation may be loaded there. Asked of fresh processes."""

import subprocess
import sys

import pytest

HEAVY = ("ray", "mlflow", "hydra", "omegaconf", "diffusers")


def loaded(imports: str) -> set[str]:
    """Which of the heavy packages ``import imports`` loads, and torch."""
    script = f"import sys\nimport {imports}\nprint(*(m for m in {(*HEAVY, 'torch')!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_the_client_app_and_every_verb_of_a_node() -> None:
    parts = ["supernode", "supervisor", "observe", "status", "limits", "check", "inbox", "guard"]
    modules = ["fedimb.deploy.site.app", "fedimb.cli.node", "fedimb.deploy.bundle_hash"]
    assert loaded(", ".join([*modules, *(f"fedimb.deploy.site.{part}" for part in parts)])) == {"torch"}


def test_the_long_lived_process_of_a_node_is_light() -> None:
    """The supervisor runs for months: not even torch."""
    assert loaded("fedimb.deploy.site.supervisor, fedimb.cli.node") == set()
