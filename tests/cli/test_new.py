"""``fedimb new``: what it writes for each kind is a package that runs, lists and passes its own test, unedited."""

import ast
import importlib.util
import inspect
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from new_parts import NAMES, SMALL, TABLE, USES, forget, pretend_installed
from small_runs import weights_sha

import fedimb
from fedimb import registry
from fedimb.cli import main, new
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder

every_kind = pytest.mark.parametrize("kind", NAMES)


@pytest.fixture
def package(kind, home, monkeypatch, capsys):
    """The written package on the path, with the metadata that pip would write from its pyproject.toml."""
    words = new.KINDS[kind].words(NAMES[kind])
    assert main(["new", kind, NAMES[kind]]) == 0
    assert f"  {words['run']}\n" in capsys.readouterr().out
    folder = home / words["project"]
    pretend_installed(folder)
    monkeypatch.syspath_prepend(folder)
    with registry.isolated():
        yield folder
    forget(words["package"])


@pytest.fixture(scope="session")
def plain_weights(cache_dir, tmp_path_factory):
    """Hash of the weights of the same small run with nothing of one's own in it."""
    where = tmp_path_factory.mktemp("plain")
    return weights_sha(fedimb.run(shlex.join([*SMALL, *TABLE, f"output_dir={where}"])))


def own_tests(folder, name):
    """The package's own test functions by name."""
    spec = importlib.util.spec_from_file_location(f"own_test_{name}", folder / "tests" / f"test_{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: test for name, test in vars(module).items() if name.startswith("test_")}


@every_kind
def test_the_files_are_those_of_the_guide(kind, package):
    name, words = NAMES[kind], new.KINDS[kind].words(NAMES[kind])
    written = sorted(p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file())
    modules = ("client.py", "contract.py", "server.py") if kind == "strategy" else (f"{kind}.py",)
    inside = ("__init__.py", "configs/__init__.py", f"configs/{words['group']}/{name}.yaml", *modules)
    expected = [
        "README.md",
        "pyproject.toml",
        f"tests/test_{name}.py",
        *(f"{words['package']}/{one}" for one in inside),
    ]
    assert [one for one in written if "dist-info" not in one] == sorted(expected)
    for file in package.rglob("*"):
        if file.is_file():
            assert "$" not in file.read_text()
        if file.suffix == ".py":
            assert max(map(len, file.read_text().splitlines()), default=0) <= 120
            assert file.name == "__init__.py" or ast.get_docstring(ast.parse(file.read_text())), file


@every_kind
def test_a_run_with_it_uses_it(kind, package, plain_weights, tmp_path, capsys):
    result = fedimb.run(shlex.join([*SMALL, *USES[kind], f"output_dir={tmp_path}/runs"]))
    assert RunFolder.open(result.folder).status() == "finished"
    words = new.KINDS[kind].words(NAMES[kind])
    assert registry.get(words["kind"], NAMES[kind]).factory.__module__.startswith(words["package"])
    if kind != "strategy":  # a method that asks every site for its size first: the weights stay as they are
        assert weights_sha(result) != plain_weights
    capsys.readouterr()
    assert main(["list", words["plural"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    (at,) = [at for at, line in enumerate(lines) if line.split()[:1] == [NAMES[kind]]]
    assert len(lines[at].split()) > 4  # and what it does
    if kind == "strategy":  # and what leaves a site
        assert "x.fresh_idea" in " ".join(lines[at : at + 4])
    assert main(["new", kind, NAMES[kind], "--dir", str(tmp_path / "again")]) == 2
    assert f"{kind} '{NAMES[kind]}' exists already" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


@every_kind
def test_its_own_test_passes(kind, package, tmp_path):
    tests = own_tests(package, NAMES[kind])
    if kind == "strategy":
        assert len(tests) == 5
        del tests["test_strength_reaches_the_sites"]  # two runs more; the slow test below has them
        del tests["test_contract"]  # a dozen runs, one on Ray
    else:
        assert len(tests) == 1
    for name, test in tests.items():
        place = tmp_path / name
        place.mkdir()
        test(**({"tmp_path": place} if inspect.signature(test).parameters else {}))


@pytest.mark.parametrize("kind", ["source"])
def test_a_source_can_be_looked_at(kind, package, capsys):
    assert (
        main(["data", "check", str(package / "breast_cancer_source" / "configs" / "data" / "breast_cancer.yaml")]) == 0
    )
    text = capsys.readouterr().out
    assert "569 rows of 30 float32" in text
    assert "minority: malignant" in text


SETTINGS = {
    "loss": ("loss.smoothing", 1.0),
    "query": ("strategy.active.query.beta", 0.0),
    "aggregator": ("aggregator.nu", 0.0),
    "optimizer": ("aggregator.momentum", 1.0),
    "sampler": ("sampler.q", 2.0),
    "model": ("model.width", 0),
    "generator": ("strategy.fedssg.generator.width", 0),
}
"""A setting of each kind, and a value that is out of its range."""


@pytest.mark.parametrize("kind", [*SETTINGS, "source"])
def test_a_setting_of_another_type_is_refused_before_any_work(kind, package, tmp_path, capsys):
    key, _ = SETTINGS.get(kind, ("data.source.columns", None))
    assert main(["run", *SMALL, *USES[kind], f"{key}=much", f"output_dir={tmp_path}/runs"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"'{NAMES[kind]}': {key.rpartition('.')[2]}='much'" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_setting_out_of_range_is_refused_with_what_to_give(kind, package):
    key, value = SETTINGS[kind]
    given = (
        {"n_classes": 3, "n_domains": 1, "shape": (4,), "input_shape": (4,)} if kind in ("model", "generator") else {}
    )
    with pytest.raises(ConfigError, match=rf"'{NAMES[kind]}': .*{key.rpartition('.')[2]}={value}.*: give "):
        registry.build(new.KINDS[kind].kind, NAMES[kind], given, **{key.rpartition(".")[2]: value})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["strategy", "plain"], "strategy 'plain' exists already"),
        (["strategy", "platform"], "strategy 'platform' exists already"),
        (["loss", "focal"], "loss 'focal' exists already; choose another name (fedimb list losses)"),
        (["optimizer", "fedavgm"], "optimizer 'fedavgm' exists already; choose another name (fedimb list aggregators)"),
        (["source", "cifar10"], "source 'cifar10' exists already"),
        (["strategy", "class"], "cannot name a strategy"),
        (["loss", "null"], "cannot name a loss"),
        (["loss", "inf"], "cannot name a loss"),
        (["model", "Mine"], "cannot name a model"),
        (["strategy", "2nd"], "cannot name a strategy"),
        (["strategy", "mine-too"], "cannot name a strategy"),
        (["query", "../mine"], "cannot name a query"),
        (["strategy", "method"], "its class 'Method' would hide a class it uses"),
        (["loss", "row"], "its class 'RowLoss' would hide a class it uses"),
        (["los", "mine"], "no kind 'los'. Did you mean 'loss'?"),
        (["encoder", "mine"], "no template for 'encoder': see docs/entry-points.md"),
        (["loss", "mine", "--dir", "full"], "full exists and is not an empty folder"),
        (["loss", "mine", "--dir", "full/there.txt"], "not an empty folder"),
        (["loss", "mine", "--dir", "full/there.txt/inside"], "cannot write"),
    ],
)
def test_a_bad_kind_name_or_folder_writes_nothing(home, capsys, words, line):
    (home / "full").mkdir()
    (home / "full" / "there.txt").write_text("mine")
    assert main(["new", *words]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert sorted(p.name for p in home.rglob("*")) == ["full", "there.txt"]


def test_a_package_of_that_name_is_not_shadowed(home, monkeypatch, capsys):
    (home / "taken_loss.py").write_text("")
    monkeypatch.syspath_prepend(home)
    assert main(["new", "loss", "taken"]) == 2
    assert "'taken_loss' is installed already" in capsys.readouterr().err


def test_nothing_is_left_of_a_package_that_could_not_be_written_whole(home, monkeypatch, capsys):
    (home / "empty").mkdir()
    write, left = type(home).write_text, [3]

    def full_disk(path, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(path, *args, **kwargs)

    monkeypatch.setattr(type(home), "write_text", full_disk)
    for folder in ("empty", "deep/er"):
        assert main(["new", "loss", "mine", "--dir", folder]) == 2
        assert "No space left on device; choose another folder with --dir" in capsys.readouterr().err
    assert [p.name for p in home.rglob("*")] == ["empty"]


def test_help_has_a_line_for_each_kind(capsys):
    with pytest.raises(SystemExit):
        main(["new", "--help"])
    text = capsys.readouterr().out
    for word, kind in new.KINDS.items():
        assert f"\n  {word:<11} {kind.line}\n" in text


def test_every_template_is_used():
    from importlib.resources import files

    names = {file.name for file in files("fedimb.cli.templates").iterdir() if file.name.endswith(".tmpl")}
    used = {source.replace("$word", kind.word) for kind in new.KINDS.values() for _, source in kind.files}
    assert names == {f"{source}.tmpl" for source in used}


@pytest.mark.slow
@pytest.mark.alone  # a Ray head fills the machine
@pytest.mark.timeout(1800)
def test_installed_by_pip_they_pass_in_a_python_of_their_own(home):
    for kind, name in NAMES.items():
        assert main(["new", kind, name, "--dir", f"mine/{kind}"]) == 0
        shutil.copytree(f"mine/{kind}", f"source/{kind}")  # pip writes beside what it installs
    words = ["install", "--no-index", "--no-build-isolation", "--no-deps", "--quiet", "--target", "site"]
    sources = [f"./source/{kind}" for kind in NAMES]
    subprocess.run([sys.executable, "-m", "pip", *words, *sources], check=True, timeout=600)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "mine"]
        + [f"mine/{kind}/tests" for kind in NAMES],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(home / "site"), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(NAMES) - 1 + 5} passed" in done.stdout
