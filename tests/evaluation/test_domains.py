"""Recall by domain: of each, the lowest, and where there is nothing to tell apart."""

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score
from small_runs import launch_in

from fedimb.evaluation.domains import Domains
from fedimb.rundir.folder import RunFolder


def logits_of(predicted, classes=3):
    return torch.nn.functional.one_hot(torch.as_tensor(predicted), classes).float()


def test_each_domains_recalls_are_those_of_its_rows_alone():
    rng = np.random.default_rng(0)
    y, said, ids = rng.integers(0, 3, 200), rng.integers(0, 3, 200), rng.integers(0, 2, 200) * 3
    found = Domains(ids, ("a/b", "never seen", "x", "Süd")).recalls(torch.from_numpy(y), logits_of(said), (2,))
    expected = {}
    for key, d in (("00_a_b", 0), ("03_Süd", 3)):
        here = ids == d
        expected[f"test/domain/{key}/macro_recall"] = recall_score(y[here], said[here], average="macro")
        expected[f"test/domain/{key}/minority_recall"] = recall_score(y[here], said[here], labels=[2], average="macro")
    for name in ("macro_recall", "minority_recall"):
        expected[f"test/worst_domain_{name}"] = min(v for k, v in expected.items() if k.endswith(f"/{name}"))
    assert found == pytest.approx(expected)


def test_a_domain_without_rare_rows_does_not_count_for_the_lowest():
    y, ids = torch.tensor([0, 2, 0, 0]), np.array([0, 0, 1, 1])
    found = Domains(ids, ("a", "b")).recalls(y, logits_of([0, 2, 0, 1]), (2,))
    assert np.isnan(found["test/domain/01_b/minority_recall"])
    assert found["test/worst_domain_minority_recall"] == 1.0
    assert found["test/worst_domain_macro_recall"] == 0.5
    nobody = Domains(ids, ("a", "b")).recalls(y, logits_of([0, 2, 0, 1]), (1,))
    assert np.isnan(nobody["test/worst_domain_minority_recall"])


@pytest.mark.parametrize("ids", [None, np.zeros(4, np.int64), np.zeros(0, np.int64)])
def test_with_one_domain_there_is_nothing_to_tell_apart(ids):
    assert Domains(ids, ("a", "b")).recalls(torch.zeros(4, dtype=torch.int64), logits_of([0] * 4), (0,)) == {}


def test_of_very_many_domains_only_the_lowest_is_logged():
    y, ids = torch.arange(33) % 3, np.arange(33)
    found = Domains(ids, [str(i) for i in range(33)]).recalls(y, logits_of([0] * 33), (2,))
    assert found == {"test/worst_domain_macro_recall": 0.0, "test/worst_domain_minority_recall": 0.0}


def test_rows_with_several_labels_have_domains_too():
    y, ids = torch.tensor([[1.0, 1.0], [0.0, 1.0]]), np.array([0, 1])
    found = Domains(ids, ("a", "b")).recalls(y, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), (1,))
    assert found["test/domain/00_a/minority_recall"] == 0.0
    assert found["test/domain/01_b/minority_recall"] == 1.0
    assert found["test/worst_domain_macro_recall"] == 0.5


def test_a_run_on_three_devices_logs_them_and_its_result_holds_them(tmp_path):
    result = launch_in(tmp_path, "data=digits_devices", "engine=inline", "rounds=1", "calibration=[none,la_post]")
    line = RunFolder(result.folder).metrics()[0]["metrics"]
    devices = [key for key in line if key.startswith("test/domain/") and key.endswith("/macro_recall")]
    assert len(devices) == 3
    assert line["test/worst_domain_macro_recall"] == min(line[key] for key in devices)
    assert result.metrics["worst_domain_macro_recall"] == line["test/worst_domain_macro_recall"]
    assert not any("domain" in key for key in launch_in(tmp_path, "engine=inline", "rounds=1").metrics)
