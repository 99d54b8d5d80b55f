"""What `import fedimb` offers is typed to the last attribute, for whoever runs mypy --strict over a script."""

import ast
import dataclasses
import subprocess
import sys
import types
import typing
from pathlib import Path

import pandas
import pytest

import fedimb

ROOT = Path(__file__).parents[2]

SCRIPT = """
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import assert_type

import fedimb

result = fedimb.run("aggregator=fedavg loss=ce seed=3", config_dirs=["configs"])
assert_type(result, fedimb.RunResult)
assert_type(fedimb.resume(result.folder), fedimb.RunResult)
assert_type(fedimb.resume("runs/default/fedavg"), fedimb.RunResult)
assert_type(fedimb.RunResult.read("runs"), fedimb.RunResult)
assert_type(result.folder, Path)
assert_type(result.rows, tuple[fedimb.RowResult, ...])
assert_type(result.up_bytes, int)
assert_type(result.down_bytes, int)
assert_type(result.seconds, float)
assert_type(result.train_counts, NDArray[np.int64])
assert_type(result.class_names, tuple[str, ...])
assert_type(result.minority, tuple[int, ...])
assert_type(result.seed, int)
assert_type(result.prior_counts, NDArray[np.float64] | None)
assert_type(result.task, str)
assert_type(result.client_seconds, float)
assert_type(result.steps, float)
assert_type(result.labels, float)
assert_type(result.privacy, dict[str, float] | None)
assert_type(result.metrics, dict[str, float])
assert_type(result.confusion, NDArray[np.int64])
assert_type(result.summary(), str)

row = result.rows[0]
assert_type(row.label, str)
assert_type(row.metrics, dict[str, float])
assert_type(row.final, dict[str, float])
assert_type(row.confusion, NDArray[np.int64])
assert_type(row.intervals, dict[str, list[float]])
assert_type(row.recall, list[list[float]])
assert_type(row.probability, dict[str, float])
assert_type(row.auroc, list[float])
assert_type(row.auprc, list[float])
assert_type(row.worst_client, float)
assert_type(row.mean_client, float)
assert_type(row.best_client, float)
assert_type(row.defined_clients, int)

model = result.model
assert_type(model, fedimb.TrainedModel)
assert_type(fedimb.load_model("runs/default/fedavg"), fedimb.TrainedModel)
assert_type(model.input_shape, tuple[int, ...])
assert_type(model.class_names, tuple[str, ...])
assert_type(model.input_scale, float)
assert_type(model.prepare(np.zeros((2, 3))), Tensor)
assert_type(model(np.zeros((2, 3))), Tensor)
assert_type(model(np.zeros((2, 3))).argmax(1), Tensor)

said = model.predict("new.csv", abstain_below=0.8, id_column="patient")
assert_type(said, fedimb.Predictions)
assert_type(said.rows, NDArray[np.int64])
assert_type(said.predicted, NDArray[np.int64 | np.bool_])
assert_type(said.scores, NDArray[np.float32])
assert_type(said.probabilities, NDArray[np.float32])
assert_type(said.classes, tuple[str, ...])
assert_type(said.ids, tuple[str, ...] | None)
model.predict(np.zeros((2, 3)), thresholds=model.choose_thresholds(recall=0.9, classes=["ill"]))
model.predict(np.zeros((2, 3)), thresholds={"ill": 0.2})

done = fedimb.compare("study.yaml", "rounds=10", workers=2)
assert_type(done, fedimb.Compared)
assert_type(done.folder, Path)
assert_type(fedimb.make_report(done), fedimb.Report)
assert_type(fedimb.make_report(result).save("report.html"), Path)
assert_type(done.failures, list[str])
assert_type(done.results.labels, tuple[str, ...])
assert_type(done.results.results[0].status, Literal["finished", "diverged", "failed"])
assert_type(done.results.results[0].matrix, NDArray[np.int64] | NDArray[np.float64] | None)
assert_type(done.results.scores("default", "fedavg", "minority_recall"), dict[int, float])
"""

WRONG = {
    "fedimb.rnu()": "attr-defined",
    "fedimb.run(3)": "arg-type",
    'fedimb.run("seed=3").confusoin': "attr-defined",
    'fedimb.run("seed=3").seed.upper()': "attr-defined",
}


def mypy(script: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """mypy --strict over a script elsewhere, which finds fedimb as an installed package that says it is typed."""
    words = ["--strict", "--config-file=", f"--cache-dir={cache}", "--follow-imports=silent", "--no-error-summary"]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *words, script.name],
        cwd=script.parent,
        env={"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_users_script_passes_strict_mypy_and_its_mistakes_are_found(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    checked = mypy(script, tmp_path / "cache")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    script.write_text("import fedimb\n\n" + "\n".join(WRONG) + "\n")
    lines = mypy(script, tmp_path / "cache").stdout.splitlines()
    for number, code in enumerate(WRONG.values(), start=3):
        assert [line for line in lines if line.startswith(f"script.py:{number}: error") and f"[{code}]" in line]


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(fedimb.__file__).parent / "py.typed").is_file()


def test_checkers_see_the_names_that_python_finds() -> None:
    tree = ast.parse(Path(fedimb.__file__).read_text())
    seen = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "fedimb.api"
        for alias in node.names
    }
    assert seen == set(fedimb.__all__) <= set(dir(fedimb))
    assert all(getattr(fedimb, name) is not None for name in seen)
    with pytest.raises(AttributeError, match="rnu"):
        fedimb.rnu  # type: ignore[attr-defined]  # noqa: B018


def untyped(hint: object) -> bool:
    """Whether a type is Any, holds it, or is an array or container of it knows not what; an array's shape is free."""
    arguments = typing.get_args(hint)
    bare = hint in (dict, list, tuple, set) or getattr(hint, "__name__", "") == "ndarray"
    if hint is typing.Any or (bare and not arguments):
        return True
    if getattr(typing.get_origin(hint), "__name__", "") == "ndarray":
        arguments = typing.get_args(arguments[1])
    return typing.get_origin(hint) is not typing.Literal and any(untyped(one) for one in arguments if one is not ...)


def public_hints(cls: type) -> typing.Iterator[tuple[str, object]]:
    """What a class's public attributes, and calls of its public methods, are said to be."""
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    hints = typing.get_type_hints(cls)
    yield from ((name, hints[name]) for name in fields)
    for name, member in vars(cls).items():
        member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and isinstance(member, types.FunctionType):
            yield name, typing.get_type_hints(member, localns={"DataFrame": pandas.DataFrame})["return"]


def test_no_public_attribute_of_a_result_is_any() -> None:
    from fedimb.rundir.model_file import TrainedModel
    from fedimb.study.results import Result, Setting, StudyResults

    classes = (
        fedimb.RunResult,
        fedimb.RowResult,
        TrainedModel,
        fedimb.Predictions,
        fedimb.Compared,
        StudyResults,
        Result,
        Setting,
    )
    seen = {(cls.__name__, name): hint for cls in classes for name, hint in public_hints(cls)}
    assert len(seen) > 60
    assert [name for name, hint in seen.items() if untyped(hint)] == []


@pytest.mark.parametrize(
    "hint", ["typing.Any", "dict[str, typing.Any]", "np.ndarray", "NDArray[typing.Any] | None", "list"]
)
def test_what_would_be_any_is_found(hint: str) -> None:
    import numpy as np
    from numpy.typing import NDArray

    assert untyped(eval(hint, {"typing": typing, "np": np, "NDArray": NDArray}))
