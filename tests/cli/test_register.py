"""`fedimb register`: the registered model says what `fedimb predict` says, and knows where it comes from."""

import csv
import json
import shutil

import numpy as np
import pytest

from fedimb.cli import main
from fedimb.data.federation import Federation
from fedimb.rundir.result import RunResult
from fedimb.tracking.store import connect

pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def run(finished, template, tmp_path_factory):
    """A finished run with two calibrations, and the address of its store."""
    root = tmp_path_factory.mktemp("register")
    shutil.copytree(finished.folder, root / "runs" / "default" / finished.folder.name)
    uri = f"sqlite:///{shutil.copy(template, root / 'mlflow.db')}"
    return RunResult.read(root / "runs" / "default" / finished.folder.name), uri


def said(run, capsys, *words):
    result, uri = run
    code = main(["register", str(result.folder), *words, "--uri", uri])
    return code, capsys.readouterr()


@pytest.mark.parametrize("calibration", ["none", "la_post"])
def test_the_registered_model_predicts_what_fedimb_predict_does(run, calibration, capsys, tmp_path):
    import mlflow

    result, uri = run
    code, taken = said(run, capsys, f"digits-{calibration}", "--calibration", calibration)
    assert (code, taken.out.splitlines()[0]) == (0, f"digits-{calibration}, version 1, in MLflow at {uri}")
    out = tmp_path / "test.csv"
    assert main(["predict", str(result.folder), "--out", str(out), "--calibration", calibration]) == 0
    federation = Federation.load(result.folder)
    rows = np.asarray(federation.store.x[federation.test])
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model(f"models:/digits-{calibration}/1")
        found = model.predict(rows)
        with pytest.raises(mlflow.exceptions.MlflowException, match="uint8"):  # pictures scaled to [0, 1] before
            model.predict((rows / rows.max()).astype(np.float32))
    finally:
        mlflow.set_tracking_uri(before)
    with out.open() as file:
        written = list(csv.DictReader(file))
    assert found["predicted"].tolist() == [line["predicted"] for line in written]
    scores = [name for name in written[0] if name.startswith("score:")]
    assert list(found.columns) == ["predicted", *scores]
    expected = np.array([[float(line[name]) for name in scores] for line in written])
    np.testing.assert_allclose(found[scores].to_numpy(), expected, rtol=1e-5, atol=1e-9)
    (spec,) = model.metadata.signature.inputs.inputs
    assert (spec.shape, spec.type) == ((-1, *rows.shape[1:]), rows.dtype)


def test_a_version_carries_its_card_run_row_and_seed_and_is_not_made_twice(run, capsys):
    result, uri = run
    for _ in range(2):
        code, taken = said(run, capsys, "twice", "--calibration", "la_post")
        assert (code, taken.out.splitlines()[0]) == (0, f"twice, version 1, in MLflow at {uri}")
    (version,) = connect(uri).search_model_versions("name = 'twice'")
    assert version.description.startswith("# Model card: la_post, seed 0")
    assert version.tags["fedimb.row"] == "la_post"
    assert version.tags["fedimb.run"].endswith("seed 0")
    assert version.run_id == json.loads((result.folder / "tracking.json").read_text())["runs"]["la_post"]


def test_what_cannot_be_registered_is_refused(run, capsys, tmp_path):
    result, _ = run
    code, taken = said(run, capsys, "a/b")
    assert (code, taken.err) == (2, "fedimb: 'a/b' is not a name of a registered model: give one without / and :\n")
    code, taken = said(run, capsys, "x", "--calibration", "tua")
    assert code == 2
    assert "this run has no calibration 'tua'" in taken.err
    unfinished = tmp_path / "runs" / "s" / "fedavg-s0-00000000"
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text((result.folder / "config.json").read_text())
    (unfinished / "status.json").write_text(json.dumps({"status": "failed", "reason": "x", "time": 1.0}))
    assert main(["register", str(unfinished), "x"]) == 1
    assert "is not finished (status: failed)" in capsys.readouterr().err
