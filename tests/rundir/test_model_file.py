"""A saved model scores rows as their source holds them exactly as the run scored them."""

import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import launch_in

import fedimb
from fedimb.data.federation import Federation
from fedimb.data.scaling import Scaling, prepared
from fedimb.data.views import to_tensors
from fedimb.errors import DataError, FedimbError
from fedimb.evaluation.confusion import confusion_matrix


@pytest.fixture(scope="module")
def table_run(cache_dir, tmp_path_factory):
    """A finished run on a table with columns far from 0 and missing values."""
    where = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    lines = ["age,dose,label"]
    for i in range(120):
        dose = "" if i % 7 == 0 else f"{rng.normal(5000 + 900 * (i % 2), 400):.1f}"
        lines.append(f"{rng.normal(60, 9):.1f},{dose},{'ill' if i % 2 else 'well'}")
    (where / "t.csv").write_text("\n".join(lines))
    data = ("data=tabular_csv", f"data.source.files=[{where}/t.csv]", "data.n_max=null", "data.test.fraction=0.3")
    return launch_in(where, *data, "engine=inline", "model=logistic", "clients.count=2", "local.lr=0.5")


def test_raw_rows_of_a_table_give_the_runs_own_predictions(table_run):
    federation = Federation.load(table_run.folder)
    raw, y = federation.store.x[federation.test], federation.store.y[federation.test]
    assert np.isnan(raw).any()
    before = raw.copy()
    model = fedimb.load_model(table_run.folder)
    logits = model(raw)
    assert np.array_equal(raw, before, equal_nan=True)
    assert torch.equal(logits, model.classifier(to_tensors(federation.store, federation.test, federation.scaling)[0]))
    assert (confusion_matrix(y, logits.argmax(1).numpy(), 2) == table_run.confusion).all()
    assert table_run.confusion.trace() > 0.7 * len(y)
    unscaled = model.classifier(torch.from_numpy(np.nan_to_num(raw))).argmax(1).numpy()
    assert (confusion_matrix(y, unscaled, 2) != table_run.confusion).any()
    assert model.class_names == table_run.class_names


def test_a_copy_of_the_two_files_is_enough(table_run, tmp_path):
    raw = Federation.load(table_run.folder).store.x[:9]
    for file in (table_run.folder / "artifacts" / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert torch.equal(fedimb.load_model(tmp_path)(torch.tensor(raw)), table_run.model(raw))
    with pytest.raises(DataError, match=r"^a row of the data is \[2\], this model reads \[3\]"):
        table_run.model(raw[:, :2])
    with pytest.raises(FedimbError, match="holds no model"):
        fedimb.load_model(tmp_path / "nowhere")


def test_a_file_that_kept_no_scaling_is_loaded_with_a_warning(table_run, tmp_path, caplog):
    source = table_run.folder / "artifacts" / "model"
    facts = json.loads((source / "model.json").read_text())
    del facts["scaling"]
    (tmp_path / "model.json").write_text(json.dumps(facts))
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with caplog.at_level(logging.WARNING, "fedimb"):
        model = fedimb.load_model(tmp_path)
    assert "scale the rows yourself" in caplog.text
    rows = torch.rand(4, 3)
    assert torch.equal(model(rows), table_run.model.classifier(rows))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1.0, 1 / 255, 0.3]), st.booleans(), st.integers(0, 999))
def test_preparing_is_one_multiplication_then_the_scaling(scale, scaled, seed):
    rows = np.random.default_rng(seed).integers(0, 256, (5, 3)).astype(np.uint8 if seed % 2 else np.float32)
    scaling = Scaling(np.array([9, 0, 1], np.float32), np.array([2, 1, 3], np.float32)) if scaled else None
    wanted = rows.astype(np.float32)
    if scale != 1:
        wanted *= np.float32(scale)
    out = prepared(rows, scale, scaling)
    assert out.dtype == np.float32
    assert (out == (wanted if scaling is None else scaling(wanted))).all()
