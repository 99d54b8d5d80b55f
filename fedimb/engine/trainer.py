"""How a run's clients train: one after another (``loop``) or many at once (``stacked``). Decided once, at launch."""

from fedimb import registry
from fedimb.config.parts import build_model
from fedimb.config.site_models import kind_configs
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.stacking import dense_layers
from fedimb.schema import RunConfig
from fedimb.training.stacked import why_model_not_stackable

LARGEST = 30_000
"""Parameters above which ``auto`` keeps the loop: above it the arithmetic outweighs what stacking saves."""
FEWEST = 4
"""Clients per round below which ``auto`` keeps the loop."""


def resolve_trainer(config: RunConfig, n_classes: int, input_shape: tuple[int, ...], clients: int) -> RunConfig:
    """The configuration with ``engine.trainer`` set to ``loop`` or ``stacked``; unchanged if the engine has no such
    setting.

    ``auto`` takes ``stacked`` for dense models of at most 30,000 parameters and at least four clients per round, where
    it is faster on a CPU. The choice follows from the configuration and the data alone, never from a measurement, so
    that a run repeated on another machine trains the same way.

    Args:
        n_classes, input_shape: number of classes of the data, and shape of one row.
        clients: number of clients trained per round.

    Raises:
        ConfigError: ``stacked`` where some part cannot be stacked.
    """
    wanted = config.engine.get("trainer")
    if wanted is None:
        return config
    models = [build_model(own, n_classes, input_shape) for own in kind_configs(config).values()]
    reason = next((why for model in models if (why := _reason(config, model)) is not None), None)
    if wanted == "stacked" and reason is not None:
        raise ConfigError(f"engine.trainer=stacked: {reason}; use engine.trainer=loop, or auto")
    if wanted == "auto":
        size = max(sum(p.numel() for p in model.parameters()) for model in models)
        worth = all(dense_layers(model) is not None for model in models) and size <= LARGEST and clients >= FEWEST
        wanted = "stacked" if reason is None and worth else "loop"
    return config.model_copy(update={"engine": config.engine | {"trainer": wanted}})


def _reason(config: RunConfig, model: Classifier) -> str | None:
    """Why these parts cannot be stacked, or None."""
    parts = [("loss", config.loss["name"])]
    parts += [("objective", one["name"]) for one in config.aggregator.get("objectives") or []]
    for kind, name in parts:
        if not registry.flags(kind, name).get("stackable", False):
            return f"the {kind} '{name}' is not stackable"
    if config.clients.private:
        return "clients.private lets each client start from other weights"
    if config.local.label_smoothing:
        return "local.label_smoothing wraps the loss"
    if config.local.max_grad_norm is not None:
        return "local.max_grad_norm bounds one client's gradient at a time"
    if config.local.precision != "float32":
        return f"local.precision={config.local.precision} trains one client at a time"
    if config.local.augmentation:
        return "local.augmentation changes one client's batch at a time"
    return why_model_not_stackable(model)
