"""A run without test rows at the server: scored by the sum of the clients' confusion matrices of the final model."""

import numpy as np
import pytest
import torch
from small_runs import launch_in

from fedimb.data.federation import Federation
from fedimb.errors import ConfigError, RunFailed
from fedimb.evaluation.confusion import confusion_of
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume

NONE = ("data.test={name: none}", "data.validation=0.3", "engine=inline", "calibration=[none,la_post]")


def test_the_clients_matrices_are_the_score(tmp_path):
    result = launch_in(tmp_path, *NONE)
    federation = Federation.load(result.folder)
    assert len(federation.test) == 0
    pairs = [federation.client(k).tensors("validation") for k in range(federation.n_clients)]
    x, y = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
    with torch.no_grad():
        logits = result.model.classifier(x) if hasattr(result.model, "classifier") else result.model(x)
    np.testing.assert_array_equal(result.confusion, confusion_of(y, logits))
    assert result.confusion.sum() == len(y) > 50
    assert result.rows[1].confusion.tolist() != result.rows[0].confusion.tolist()
    lines = [line["metrics"] for line in RunFolder(result.folder).metrics() if line["row"] == "fedavg"]
    assert ["test/macro_recall" in line for line in lines] == [False] * 3 + [True]
    assert "client/macro_recall" in lines[1]
    assert result.metrics["macro_recall"] == pytest.approx(lines[-1]["test/macro_recall"])


def test_resumed_at_the_very_end_it_is_scored_once(tmp_path, monkeypatch):
    import fedimb.serverapp.launch as launch

    original = launch.write_result

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "write_result", stop)
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path, *NONE)
    monkeypatch.setattr(launch, "write_result", original)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    result = resume(folder)
    scored = [line for line in RunFolder(folder).metrics() if "test/macro_recall" in line["metrics"]]
    assert len(scored) == 2  # one per calibration
    whole = launch_in(tmp_path / "whole", *NONE)
    assert result.metrics == whole.metrics


def test_a_run_nobody_could_score_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.validation=0\.2"):
        launch_in(tmp_path, "data.test={name: none}", "engine=inline")


def test_under_masks_the_sum_is_the_same_and_no_client_is_read(tmp_path, monkeypatch):
    from fedimb.serverapp.exchange import Exchange

    seen, original = [], Exchange.send

    def watch(self, kind, *args, **more):
        outcome = original(self, kind, *args, **more)
        seen.append((kind, outcome))
        return outcome

    monkeypatch.setattr(Exchange, "send", watch)
    clear = launch_in(tmp_path, *NONE)
    seen.clear()
    secure = launch_in(tmp_path, *NONE, "evaluation.secure=true")
    for one, other in zip(clear.rows, secure.rows, strict=True):
        np.testing.assert_array_equal(one.confusion, other.confusion)
        assert one.final == other.final
    lines = [line["metrics"] for line in RunFolder(secure.folder).metrics()]
    assert not any(key.startswith("client/") for line in lines for key in line)
    [masked] = [outcome for kind, outcome in seen if kind == "masked_scores"]
    assert "scored" not in [kind for kind, _ in seen]
    for answer in masked.replies:
        sent = answer.content["x.scores"]["none"].numpy()
        assert sent.dtype == np.uint64
        assert sent.min() > 1000  # no count of a few dozen rows
    assert all(outcome.total.confusion is None for _, outcome in seen)


def test_a_client_that_drops_out_leaves_the_sum_hidden(tmp_path, monkeypatch):
    from fedimb.clientapp import scores as client_scores

    original = client_scores.answer_query

    def broken(query, content, context):
        if context.client == 2:
            raise RuntimeError("gone")
        return original(query, content, context)

    monkeypatch.setattr(client_scores, "answer_query", broken)
    with pytest.raises(RunFailed, match=r"(?s)client 2 sent nothing \(.*gone.*fix that client and resume"):
        launch_in(tmp_path, *NONE, "evaluation.secure=true")
    monkeypatch.setattr(client_scores, "answer_query", original)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert resume(folder).confusion.sum() > 50


def test_masks_need_two_clients(tmp_path):
    with pytest.raises(ConfigError, match="hides nothing with one client"):
        launch_in(tmp_path, *NONE, "evaluation.secure=true", "clients.count=1")
