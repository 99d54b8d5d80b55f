"""``fedimb new strategy``: the pages are a package that runs, lists and passes its own test, unedited."""

import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from fedimb import registry
from fedimb.cli import main, new

NAME = "fresh_idea"
PACKAGE = f"{NAME}_method"


@pytest.fixture
def package(home, monkeypatch):
    """The written package on the path, with the metadata that pip would write from its pyproject.toml."""
    assert main(["new", "strategy", NAME]) == 0
    folder = home / "fresh-idea-method"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    about = folder / f"{PACKAGE}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"]
    lines = [
        line for group, points in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
    with registry.isolated():
        yield folder
    for module in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


def test_the_files_are_those_of_the_guide(package):
    written = sorted(p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file())
    assert [name for name in written if "dist-info" not in name] == [
        "README.md",
        f"{PACKAGE}/__init__.py",
        f"{PACKAGE}/client.py",
        f"{PACKAGE}/configs/__init__.py",
        f"{PACKAGE}/configs/strategy/{NAME}.yaml",
        f"{PACKAGE}/contract.py",
        f"{PACKAGE}/server.py",
        "pyproject.toml",
        f"tests/test_{NAME}.py",
    ]
    for file in package.rglob("*"):
        if file.is_file():
            assert "$" not in file.read_text()
        if file.suffix == ".py":
            compile(file.read_text(), str(file), "exec")
            assert max(map(len, file.read_text().splitlines()), default=0) <= 120


def test_its_own_tests_pass_and_it_is_listed(package, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}_tests", package / "tests" / f"test_{NAME}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    assert len(tests) == 4
    del tests["test_strength_reaches_the_sites"]  # two runs more; the slow test below has them
    for name, test in tests.items():
        place = tmp_path / name
        place.mkdir()
        test(**({"tmp_path": place} if inspect.signature(test).parameters else {}))
    assert main(["list", "strategies"]) == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [NAME]]
    assert "Ask every site for its size" in line
    assert "x.fresh_idea" in text  # what leaves a site
    assert main(["new", "strategy", NAME, "--dir", str(tmp_path / "again")]) == 2
    assert f"strategy '{NAME}' exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["plain"], "strategy 'plain' exists already"),
        (["platform"], "strategy 'platform' exists already"),
        (["class"], "cannot name a strategy"),
        (["Mine"], "cannot name a strategy"),
        (["2nd"], "cannot name a strategy"),
        (["mine-too"], "cannot name a strategy"),
        (["../mine"], "cannot name a strategy"),
        (["mine", "--dir", "full"], "full exists and is not an empty folder"),
        (["mine", "--dir", "full/there.txt"], "not an empty folder"),
        (["mine", "--dir", "full/there.txt/inside"], "cannot write"),
    ],
)
def test_a_bad_name_or_folder_writes_nothing(home, capsys, words, line):
    (home / "full").mkdir()
    (home / "full" / "there.txt").write_text("mine")
    assert main(["new", "strategy", *words]) == 2
    assert line in capsys.readouterr().err
    assert sorted(p.name for p in home.rglob("*")) == ["full", "there.txt"]


def test_a_package_of_that_name_is_not_shadowed(home, monkeypatch, capsys):
    (home / "taken_method.py").write_text("")
    monkeypatch.syspath_prepend(home)
    assert main(["new", "strategy", "taken"]) == 2
    assert "'taken_method' is installed already" in capsys.readouterr().err


def test_every_template_is_used():
    from importlib.resources import files

    names = {file.name for file in files("fedimb.cli.templates").iterdir() if file.name.endswith(".tmpl")}
    assert names == {f"{source}.tmpl" for source in new._FILES.values()}


@pytest.mark.slow
def test_installed_by_pip_it_passes_in_a_python_of_its_own(home, capsys):
    assert main(["new", "strategy", NAME, "--dir", "mine"]) == 0
    assert "pip install -e mine\n" in capsys.readouterr().out
    shutil.copytree("mine", "source")  # pip writes beside what it installs
    words = ["install", "--no-index", "--no-build-isolation", "--no-deps", "--quiet", "--target", "site", "./source"]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "mine", "mine/tests"],
        env={**os.environ, "PYTHONPATH": str(home / "site")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
