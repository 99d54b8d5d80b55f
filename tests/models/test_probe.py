"""A model from elsewhere is looked at before it trains: what PyTorch accepts without a word is refused by name."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.probe import is_from_elsewhere, probe_model


class Net(Classifier):
    """A network without a fault."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5))
        self.head = nn.Linear(4 * 4 * 4, 3)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found


class StaysInEvaluation(Net):
    def train(self, mode: bool = True) -> "StaysInEvaluation":
        super().train(mode)
        self.body.eval()
        return self


class DropoutAloneAsleep(Net):
    def train(self, mode: bool = True) -> "DropoutAloneAsleep":
        super().train(mode)
        self.body[4].eval()
        return self


class FallsAsleep(Net):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x) if not self.training else self.eval().body(x)


class NeverEndingDropout(Net):
    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x))


class BatchStatistics(Net):
    def __init__(self) -> None:
        super().__init__()
        self.body[1] = nn.BatchNorm2d(4, track_running_stats=False)


class Detached(Net):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x).detach()


class WithoutGradient(Net):
    def features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().features(x)


class OldClassifier(Net):
    """The head of the network as it was is still there."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 1000)


class Wide(Net):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x)[:, :60]


class Double(Net):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x).double()


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (StaysInEvaluation, r"after model.train\(\), 'body' \(Sequential\) is in evaluation mode"),
        (DropoutAloneAsleep, r"'body.4' \(Dropout\) is in evaluation mode"),
        (FallsAsleep, "a pass puts the whole model into evaluation mode"),
        (NeverEndingDropout, "other logits in every pass"),
        (BatchStatistics, "depend on the other rows of its batch"),
        (Detached, "no gradient reaches body.0.weight and 3 more"),
        (WithoutGradient, "no gradient reaches body.0.weight and 3 more"),
        (OldClassifier, "no gradient reaches fc.weight and 1 more"),
        (Wide, r"is torch.float32 \[4, 60\], its head reads float32 \[n, 64\]"),
        (Double, r"is torch.float64 \[4, 64\]"),
        (Frozen, "nothing would be trained"),
    ],
)
def test_what_would_train_wrongly_is_refused(model: type[Net], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model 'mine.Net': .*{message}"):
        probe_model("mine.Net", model(), (1, 6, 6))


class FrozenBackbone(StaysInEvaluation):
    """A backbone that is neither trained nor in training mode, and a trained layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)
        self.head = nn.Linear(64, 3)


def test_a_good_model_passes_and_so_does_a_frozen_backbone_in_evaluation_mode() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for model in (Net(), FrozenBackbone()):
        weights = {key: p.detach().clone() for key, p in model.named_parameters()}
        state = torch.random.get_rng_state()
        probe_model("mine.Net", model, (1, 6, 6))
        assert torch.equal(torch.random.get_rng_state(), state), "torch's generator is not touched"
        assert all(torch.equal(p, weights[key]) and p.grad is None for key, p in model.named_parameters())
    assert not torch.equal(torch.random.get_rng_state(), before), "the models did draw their weights"


def test_methods_of_lightning_are_said_to_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    class Lightning(Net):
        def training_step(self) -> None: ...

        def configure_optimizers(self) -> None: ...

    with caplog.at_level(logging.WARNING):
        probe_model("mine.Net", Net(), (1, 6, 6))
        assert caplog.messages == []
        probe_model("mine.Net", Lightning(), (1, 6, 6))
    (line,) = caplog.messages
    assert "training_step, configure_optimizers of Lightning will not be called" in line


def test_only_models_from_elsewhere_are_looked_at() -> None:
    assert is_from_elsewhere("my_net.MyNet")
    assert not is_from_elsewhere("resnet8")


@pytest.mark.slow
def test_a_run_refuses_such_a_model_before_its_first_round(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pathlib import Path

    from fedimb.cli import main

    assert isinstance(tmp_path, Path)
    text = """from fedimb.models.base import Classifier
from torch import nn
from torch.nn import functional as F
class Mine(Classifier):
    def __init__(self, n_classes, input_shape):
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, n_classes)
    def features(self, x):
        return F.dropout(self.body(x.flatten(1)))
"""
    (tmp_path / "probed_net.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    words = ["run", "model={_target_: probed_net.Mine}", "rounds=1", "engine=inline", "tracking=none"]
    assert main(words) != 0
    assert "other logits in every pass" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "default").exists() or not list((tmp_path / "runs" / "default").iterdir())
