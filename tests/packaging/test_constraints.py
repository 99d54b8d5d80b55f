"""constraints.txt pins all of what ``.[sim,dev,docs]`` brings, inside pyproject.toml's ranges, and nothing harmful."""

import importlib.util
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# They replace torch by a build for GPUs, or make diffusers fail on import beside a torch without one.
HARMFUL = {"torchvision": "torchvision", "timm": "timm", "open-clip-torch": "open_clip"}
# What only torch's GPU build for Linux asks for; torch pins these itself.
TORCH_OWN = ("nvidia-", "cuda-", "triton")


def pins() -> dict[str, str]:
    """Canonical name -> version, for each line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), [pair for pair in pairs if len(pair) != 2]
    return {canonicalize_name(name): number for name, number in pairs}


def declared() -> list[Requirement]:
    """What pyproject.toml asks for: the core, ``sim``, ``dev``, ``docs`` and the build system."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    words = project["project"]["dependencies"] + extras["sim"] + extras["dev"] + extras["docs"]
    return [Requirement(word) for word in words + project["build-system"]["requires"]]


def test_each_declared_package_is_pinned_inside_its_range() -> None:
    pinned = pins()
    for wanted in declared():
        number = pinned.get(canonicalize_name(wanted.name))
        assert number is not None, f"{wanted.name} is not in constraints.txt"
        assert wanted.specifier.contains(number, prereleases=True), f"{wanted} does not allow {number}"


def test_every_package_they_bring_is_pinned() -> None:
    pinned = pins()
    waiting = [(canonicalize_name(wanted.name), tuple(sorted(wanted.extras))) for wanted in declared()]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    missing = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in pinned and not name.startswith(TORCH_OWN):
            missing.add(name)
        try:
            words = requires(name) or []
        except PackageNotFoundError:  # a pinned optional part this environment lacks: nothing to follow
            continue
        for word in words:
            wanted = Requirement(word)
            marker = wanted.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((canonicalize_name(wanted.name), tuple(sorted(wanted.extras))))
    assert len(seen) > 100
    assert not missing, f"add to constraints.txt: {', '.join(sorted(missing))}"


def test_pins_are_plain_public_versions() -> None:
    for name, number in pins().items():
        parsed = Version(number)
        assert parsed.local is None, f"{name}=={number}: a local version exists on one machine only"
    assert "fedimb" not in pins()


@pytest.mark.parametrize(("package", "module"), HARMFUL.items())
def test_packages_that_break_torch_are_absent(package: str, module: str) -> None:
    assert package not in pins()
    assert package not in {canonicalize_name(wanted.name) for wanted in declared()}
    assert importlib.util.find_spec(module) is None, f"{module} is installed: remove it (pip uninstall {package})"


def test_the_running_environment_has_the_pinned_core() -> None:
    """The versions the tests ran with are the pinned ones, or a green run says nothing about constraints.txt."""
    pinned = pins()
    for name in ("torch", "numpy", "flwr", "ray", "mlflow", "hydra-core", "scikit-learn", "scipy"):
        assert version(name).split("+")[0] == pinned[name], f"{name} {version(name)} is installed: make install"
