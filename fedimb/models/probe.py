"""A look at a model from elsewhere before it trains: what PyTorch and Lightning accept without a word.

A layer that stays in evaluation mode, dropout that never ends, a part that no gradient reaches: the model trains, its
losses fall, and its scores are those of something else.
"""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.registry.targets import is_path

log = logging.getLogger(__name__)

_ROWS = 4
_CLOSE = 1e-3
"""How far logits of a row may differ with its batch, in units of the largest: sums are in another order there."""


def is_from_elsewhere(name: str) -> bool:
    """Whether a model is not one of fedimb's own: named by its path, or of an installed package."""
    return is_path(name) or not getattr(registry.get("model", name).factory, "__module__", "").startswith("fedimb.")


def probe_model(name: str, model: Classifier, input_shape: tuple[int, ...]) -> None:
    """Send four rows of noise through a model, in training and in evaluation mode; its weights stay as they are.

    Args:
        name: of the model, for messages.
        model: in any mode; it is left in evaluation mode, its buffers may have moved. torch's global generator is not
            touched.
        input_shape: of one row.

    Raises:
        ConfigError: a trained layer that is in evaluation mode while training, features that the head cannot read,
            predictions that are drawn by lot or depend on other rows, or a parameter that nothing trains.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(_ROWS, *input_shape)
        _check_modes(name, model, x)
        _check_predictions(name, model, x)
        model.zero_grad(set_to_none=True)
    _warn_of_lightning(name, model)


def _check_modes(name: str, model: Classifier, x: Tensor) -> None:
    model.train()
    if asleep := _asleep(model):
        raise ConfigError(
            f"model '{name}': after model.train(), {asleep} is in evaluation mode: it would train without dropout and "
            "with BatchNorm's old statistics. Do not override train(), or freeze the layer (requires_grad_(False))"
        )
    features = model.features(x)
    width = model.head.in_features
    if not isinstance(features, Tensor) or tuple(features.shape) != (_ROWS, width) or features.dtype != torch.float32:
        found = f"{features.dtype} {list(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(f"model '{name}': features() of {_ROWS} rows is {found}, its head reads float32 [n, {width}]")
    if asleep := _asleep(model):
        raise ConfigError(
            f"model '{name}': a pass puts {asleep} into evaluation mode: leave eval() and train() out of features()"
        )
    trained = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise ConfigError(f"model '{name}': no parameter has requires_grad: nothing would be trained")
    model.zero_grad(set_to_none=True)
    logits = model(x)
    if logits.requires_grad:
        logits.square().sum().backward()
    head = {id(p) for p in model.head.parameters()}  # what of a head is trained may hang on an objective
    if idle := [key for key, p in trained if p.grad is None and id(p) not in head]:
        more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
        raise ConfigError(
            f"model '{name}': no gradient reaches {idle[0]}{more}: it would stay at random. Use it in features(), "
            "without no_grad() and detach(); or delete it, or freeze it (requires_grad_(False))"
        )


@torch.no_grad()
def _check_predictions(name: str, model: Classifier, x: Tensor) -> None:
    model.eval()
    together, again, alone = model(x), model(x), torch.cat([model(row[None]) for row in x])
    if not torch.allclose(together, again, rtol=0, atol=0, equal_nan=True):
        raise ConfigError(
            f"model '{name}': in evaluation mode a row has other logits in every pass: give dropout "
            "training=self.training, and draw nothing"
        )
    if not torch.allclose(together, alone, rtol=0, atol=_CLOSE * max(1.0, float(together.abs().max())), equal_nan=True):
        raise ConfigError(
            f"model '{name}': in evaluation mode a row's logits depend on the other rows of its batch: BatchNorm "
            "without running statistics? Use GroupNorm, or track_running_stats=True"
        )


def _asleep(model: nn.Module) -> str | None:
    """A layer that is in evaluation mode though it, or what it drops out of, is trained; None if there is none."""
    for key, layer in _highest_asleep(model, ""):
        if any(p.requires_grad for p in layer.parameters()) or isinstance(layer, _DropoutNd):
            return f"'{key}' ({type(layer).__name__})" if key else "the whole model"
    return None


def _highest_asleep(layer: nn.Module, key: str) -> Iterator[tuple[str, nn.Module]]:
    """(name, layer) of each layer in evaluation mode whose parent is not."""
    if not layer.training:
        yield key, layer
        return
    for name, child in layer.named_children():
        yield from _highest_asleep(child, f"{key}.{name}" if key else name)


def _warn_of_lightning(name: str, model: nn.Module) -> None:
    unread = ("training_step", "validation_step", "configure_optimizers")
    for layer in model.modules():
        own = [one for one in type(layer).__mro__ if not one.__module__.startswith(("lightning", "pytorch_lightning"))]
        if said := [word for word in unread if any(word in vars(one) for one in own)]:
            log.warning(
                "model '%s': %s of %s will not be called: the loss is loss=..., the optimiser local.optimizer",
                name,
                ", ".join(said),
                type(layer).__name__,
            )
            return
