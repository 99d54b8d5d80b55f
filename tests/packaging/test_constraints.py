"""constraints.txt pins all of what ``.[sim,dev,docs]`` brings, inside pyproject.toml's ranges, and nothing harmful."""

import importlib.util
import itertools
import json
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import ModuleType

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


def pins_script() -> ModuleType:
    """.ci/pins.py, which is no package."""
    spec = importlib.util.spec_from_file_location("pins", ROOT / ".ci" / "pins.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(code: int, stderr: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.CompletedProcess([], code, "", stderr)


def test_make_update_writes_what_pip_would_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = pins_script()
    monkeypatch.setattr(pins, "PINS", tmp_path / "constraints.txt")
    pins.PINS.write_text("# Head.\nFlask==1.0\npip==26.0\ntorch==2.0\nwas_needed==1\n")

    def pip(*words: str) -> "subprocess.CompletedProcess[str]":
        assert "--dry-run" in words
        found = {"flask": "2.0", "torch": "2.1+cpu", "nvidia-cublas": "12", "New.Name": "3"}
        items = [{"metadata": {"name": name, "version": version}} for name, version in found.items()]
        Path(words[words.index("--report") + 1]).write_text(json.dumps({"install": items}))
        return answer(0)

    monkeypatch.setattr(pins, "pip", pip)
    assert pins.update() == 0
    assert pins.PINS.read_text() == "# Head.\nFlask==2.0\nNew.Name==3\npip==26.0\ntorch==2.1\n"
    assert capsys.readouterr().out.splitlines()[:4] == [
        "Flask: 1.0 -> 2.0",
        "New.Name: new -> 3",
        "torch: 2.0 -> 2.1",
        "was_needed: 1 -> gone",
    ]


def test_make_update_refuses_a_version_of_one_machine() -> None:
    report = {"install": [{"metadata": {"name": "torch", "version": "2.1+mine"}}]}
    with pytest.raises(ValueError, match="one machine only"):
        pins_script().updated({"torch": "2.0"}, report)


def test_make_resolve_names_what_has_no_wheel_and_what_else_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = pins_script()
    monkeypatch.setattr(pins, "PINS", tmp_path / "constraints.txt")
    pins.PINS.write_text("a==1\nOnly_Source==2\n")
    found = "a==1\nonly-source==2\nnvidia-cublas==12\n"

    def pip(*words: str) -> "subprocess.CompletedProcess[str]":
        assert ("3.13" in words, "--only-binary=:all:" in words) == (True, True)
        missing = "Only_Source==2" in words
        return answer(int(missing), "ERROR: No matching distribution found for Only_Source==2\n" if missing else "")

    def uv(*words: str, asked: str) -> "subprocess.CompletedProcess[str]":
        assert words[words.index("--python-version") + 1] == "3.13"
        assert [after for word, after in itertools.pairwise(words) if word == "--only-binary"] == ["a"]
        assert "torch" in asked
        return subprocess.CompletedProcess([], 0, found, "")

    monkeypatch.setattr(pins, "pip", pip)
    monkeypatch.setattr(pins, "uv", uv)
    assert pins.resolve("3.13") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Python 3.13: 1 of 2 pins have a wheel; not run",
        "  only-source: no wheel for 3.13, pip would have to build it",
        "  resolved with all extras that are pinned: no other",
    ]
    found += "audioop-lts==0.2.1 ; python_full_version >= '3.13'\n"
    assert pins.resolve("3.13") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("also needs audioop-lts==0.2.1")
    monkeypatch.setattr(pins, "uv", lambda *words, asked: answer(1, "no solution"))
    assert pins.resolve("3.13") == 1
    monkeypatch.setattr(pins, "pip", lambda *words: answer(2, "no network"))
    assert pins.resolve("3.13") == 2
