"""local.precision=bf16: what is computed in bfloat16, and where it is refused."""

from pathlib import Path

import pytest
import torch
from local_training import fresh, generator, rows, spec, weights
from torch import nn
from torch.nn.functional import cross_entropy

from fedimb.config.compose import compose
from fedimb.config.load import config_sha
from fedimb.config.validate import validate
from fedimb.engine.trainer import resolve_trainer
from fedimb.errors import ConfigError
from fedimb.models.cnn4conv import CNN4Conv
from fedimb.serverapp.launch import launch
from fedimb.training import precision
from fedimb.training.local import train_locally
from fedimb.training.stacked import why_spec_not_stackable


@pytest.fixture
def bf16(monkeypatch):
    """As on a processor that has it; others compute the same, slowly."""
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)


class Seen(nn.Module):
    """Cross-entropy that notes what it gets."""

    needs_features = True

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, logits, labels, features):
        self.got.append((logits.detach(), features.detach()))
        return cross_entropy(logits, labels)


def test_features_and_head_are_bfloat16_and_all_else_float32(bf16):
    x, y = rows(8)
    ours, theirs, loss = fresh(), fresh(), Seen()
    train_locally(ours, x, y, spec(steps=1, batch_size=8, precision="bf16", loss=loss), generator())
    ((logits, features),) = loss.got
    assert logits.dtype == features.dtype == torch.float32
    order = torch.randperm(8, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        right = theirs.features(x[order])
        scores = theirs.head(right)
    assert scores.dtype == torch.bfloat16
    assert torch.equal(logits, scores.detach().float())
    gradients = torch.autograd.grad(cross_entropy(scores.float(), y[order]), list(theirs.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
            parameter -= 0.1 * gradient
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-7)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_weights_stay_near_those_of_float32_and_repeat_their_bits(norm, bf16):
    x, y = torch.randn(24, 3, 8, 8, generator=generator()), torch.arange(24) % 3
    found = {}
    for name, arithmetic in (("float32", "float32"), ("bf16", "bf16"), ("again", "bf16")):
        torch.manual_seed(0)
        model = CNN4Conv(3, (3, 8, 8), 8, norm)
        found["start"] = weights(model)
        train_locally(model, x, y, spec(steps=6, batch_size=8, precision=arithmetic), generator())
        found[name] = weights(model)
    assert torch.equal(found["bf16"], found["again"])
    assert not torch.equal(found["bf16"], found["float32"])
    moved = (found["float32"] - found["start"]).norm()
    assert float((found["bf16"] - found["float32"]).norm() / moved) < 0.8  # BatchNorm over 8 rows amplifies rounding


def test_a_processor_without_it_is_refused_before_a_run_begins(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    x, y = rows(8)
    with pytest.raises(ConfigError, match=r"local.precision=bf16: this processor has no bfloat16 arithmetic.*=float32"):
        train_locally(fresh(), x, y, spec(precision="bf16"), generator())
    words = ["local.precision=bf16", "engine=inline", "tracking=none", f"output_dir={tmp_path}"]
    with pytest.raises(ConfigError, match=r"local\.precision=bf16: this processor"):
        launch(validate(compose(words)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"local\.precision=.*: not a valid name.*float32.*bf16"):
        validate(compose(["local.precision=bfloat16"]))


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx2 avx512f f16c", False),
        ("model name\t: Model bf16", False),
    ],
)
def test_a_processor_is_asked_in_its_own_words(line, there, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        assert hasattr(torch.cpu, name)  # private: if torch renames it, the other source still answers
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    monkeypatch.setattr(Path, "read_text", lambda self, **how: f"processor\t: 0\n{line}\n")
    assert precision.cpu_has_bf16.__wrapped__() is there


def test_it_is_part_of_a_runs_hash_and_trains_one_client_at_a_time():
    usual, other = validate(compose(["model=mlp"])), validate(compose(["model=mlp", "local.precision=bf16"]))
    assert config_sha(usual) != config_sha(other)
    assert config_sha(usual) == config_sha(validate(compose(["model=mlp", "local.precision=float32"])))
    assert resolve_trainer(usual, 10, (64,), 50).engine["trainer"] == "stacked"
    assert resolve_trainer(other, 10, (64,), 50).engine["trainer"] == "loop"
    assert "local.precision=bf16" in str(why_spec_not_stackable(spec(precision="bf16")))
