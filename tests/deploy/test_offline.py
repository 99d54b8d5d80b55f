"""The offline bundle: complete by the packages' own metadata, and installable with no index, no root, no ensurepip."""

import hashlib
import os
import subprocess
import sys
import tarfile
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fedimb.cli import main
from fedimb.deploy.offline import package_facts, required_packages
from fedimb.errors import ConfigError


def test_what_is_needed_is_closed_under_needing() -> None:
    """Checked package by package against its own metadata, which is what `pip check` does after the installation."""
    found = {package.name: package.version for package in required_packages()}
    assert "fedimb" not in found
    for name in ("fedimb", *found):
        for text in distribution(name).requires or ():
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                below = canonicalize_name(one.name)
                assert below in found, f"{name} needs {below}"
                assert one.specifier.contains(found[below], prereleases=True)


def test_a_node_needs_nothing_of_the_simulation() -> None:
    found = {package.name for package in required_packages()}
    assert {"torch", "flwr", "pydantic", "cryptography", "pyyaml"} <= found
    assert not found & {"ray", "mlflow", "hydra-core", "omegaconf", "diffusers", "matplotlib", "pandas"}
    assert "diffusers" in {package.name for package in required_packages(extras=["generate"])}


def test_left_out_goes_with_what_only_it_needs() -> None:
    whole, rest = ({package.name for package in required_packages(without=out)} for out in ([], ["Torch"]))
    assert {"torch", "sympy"} <= whole - rest
    assert {"numpy", "flwr"} <= rest


@pytest.mark.parametrize(
    ("extras", "without", "says"),
    [(["dicm"], [], "dicom"), ([], ["numpi"], "numpy"), (["nonsense"], [], "Valid|nonsense")],
)
def test_a_wrong_name_is_answered_with_the_nearest(extras: list[str], without: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        required_packages(extras, without)


def test_every_package_has_a_line_about_its_licence() -> None:
    for package in required_packages():
        assert package.licence
        assert "\n" not in package.licence
    assert package_facts(distribution("flwr")).licence == "Apache-2.0"


def test_the_wheel_of_another_release_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fedimb.deploy.offline import _own_wheel

    other = tmp_path / "fedimb-9.9.9-py3-none-any.whl"
    other.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"9\.9\.9"):
        _own_wheel(tmp_path, other, tmp_path)


def test_the_installer_refuses_before_it_writes(tmp_path: Path) -> None:
    """Another Python, another machine, a folder that is there, a changed file."""
    template = (files("fedimb.deploy.templates") / "install.sh.tmpl").read_text()
    words = {"RELEASE": "1", "MINOR": str(sys.version_info[1]), "MACHINE": os.uname().machine, "WITHOUT": ""}
    for word, value in words.items():
        template = template.replace(f"@{word}@", value)
    folder = tmp_path / "Bündel neu"
    folder.mkdir()
    (folder / "SHA256SUMS").write_text(hashlib.sha256(b"as made").hexdigest() + "  wheel\n")
    (folder / "wheel").write_bytes(b"changed")

    def run(script: str, target: Path, python: str = sys.executable) -> str:
        (folder / "install.sh").write_text(script)
        words = ["sh", str(folder / "install.sh"), str(target)]
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHON": python})
        assert done.returncode == 2
        assert not (target / "bin").exists()
        return done.stderr

    assert "set PYTHON" in run(template, tmp_path / "new", "/nowhere/python")
    assert "exists" in run(template, folder)
    assert "copy the bundle again" in run(template, tmp_path / "new")
    assert "this machine is" in run(template.replace(os.uname().machine, "s390x"), tmp_path / "new")


@pytest.mark.slow
def test_it_installs_with_no_index_into_a_fresh_environment(tmp_path: Path) -> None:
    """Without torch, whose wheel is large; that one is lent from here to see the installed fedimb at work."""
    assert main(["deploy", "bundle", "--to", str(tmp_path), "--without", "torch"]) == 0
    (made,) = tmp_path.glob("*.tar")
    with tarfile.open(made) as tar:
        assert {entry.uname for entry in tar} == {""}
    subprocess.run(["tar", "-xf", str(made), "-C", str(tmp_path)], check=True)
    folder, target = tmp_path / made.stem, tmp_path / "fedimb neu"
    licences = (folder / "LICENCES.md").read_text()
    wheels = list((folder / "wheels").iterdir())
    assert all(path.suffix == ".whl" for path in wheels)
    assert licences.count("\n| ") == len(wheels) + 2
    assert len((folder / "requirements.txt").read_text().splitlines()) == len(wheels)

    # No index can answer: one that does not exist, through a proxy that does not exist.
    dead = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "HTTPS_PROXY": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | dead
    env["PYTHON"] = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([str(folder / "install.sh"), str(target)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not in this bundle" in done.stdout
    ask = [str(target / "bin" / "fedimb"), "node", "status", "--home", str(tmp_path)]
    answer = subprocess.run(ask, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert answer.returncode == 2
    assert "is not a node's folder" in answer.stderr
    lent = f"import sys; sys.path.append({str(Path(distribution('torch').locate_file('')))!r}); import fedimb.app; "
    works = subprocess.run(
        [str(target / "bin" / "python"), "-c", lent + "print(fedimb.clientapp.app.__file__)"],
        capture_output=True, text=True, env=env, cwd=tmp_path,
    )  # fmt: skip
    assert works.stdout.startswith(str(target)), works.stderr
    (folder / "wheels" / wheels[0].name).write_bytes(b"broken on the way")
    again = subprocess.run([str(folder / "install.sh"), str(tmp_path / "x")], env=env, capture_output=True, text=True)
    assert again.returncode == 2
    assert wheels[0].name in again.stdout + again.stderr
