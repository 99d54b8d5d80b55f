"""Networks that differ between clients (``clients.models``), and weights that stay at each (``clients.private``).

A *kind* is a network. Every kind is an ordinary configuration (`kind_config`), so that parts, runtime, stacking and
evaluation need not know of the others. What is sent and averaged of a model follows from `Layout`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import nn

from fedimb import registry
from fedimb.config.parts import build_model
from fedimb.data.label_spaces import clients_named
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier, Resident, buffers_of, parameters_of
from fedimb.schema import MODEL, SHARED, RunConfig, private_rule
from fedimb.seeds import Stream, numpy_rng

T = TypeVar("T")


def kinds_of(config: RunConfig, clients: int, sites_of: Callable[[], Mapping[str, Sequence[int]]]) -> tuple[str, ...]:
    """The kind of network that each client trains, by client id; ``model`` for those that are given none.

    Args:
        config: a validated configuration.
        clients: K.
        sites_of: gives the clients of each site by its name; called only if it is needed.

    Raises:
        ConfigError: unknown client or site, or one that is named twice.

    Example:
        >>> from fedimb.config.compose import compose
        >>> from fedimb.config.validate import validate
        >>> models = "{kinds: {wide: {name: mlp, hidden: [96]}}, at: {2: wide}}"
        >>> kinds_of(validate(compose([f"clients.models={models}"])), 4, dict)
        ('model', 'model', 'wide', 'model')
    """
    models, found = config.clients.models, [MODEL] * clients
    if models is None:
        return tuple(found)
    if models.at is not None:
        named: dict[int, str] = {}
        for who, kind in models.at.items():
            for client in clients_named(f"clients.models.at.{who}", who, clients, sites_of(), named):
                found[client] = kind
        return tuple(found)
    order = numpy_rng(config.seed, Stream.SITE_MODELS).permutation(clients).tolist()
    shares = list((models.shares or {}).items())
    ends = np.rint(np.cumsum([share for _, share in shares]) * clients).astype(int).tolist()
    for (kind, share), start, end in zip(shares, [0, *ends[:-1]], ends, strict=True):
        if start == end:
            raise ConfigError(
                f"clients.models.shares.{kind}={share:g} of {clients} clients is nobody: give a larger share, or more "
                "clients"
            )
        for client in order[start:end]:
            found[client] = kind
    return tuple(found)


def kind_config(config: RunConfig, kind: str) -> RunConfig:
    """The configuration as the clients of one kind have it: their network is the run's ``model``."""
    models = config.clients.models
    if models is None:
        return config
    update = {} if kind == MODEL else {"model": models.kinds[kind]}
    clients = config.clients.model_copy(update={"models": None})
    return config.model_copy(update={"clients": clients, **update})


def kind_configs(config: RunConfig) -> dict[str, RunConfig]:
    """The configuration of every kind that a client may have, by its name."""
    models = config.clients.models
    if models is None:
        return {MODEL: config}
    given = set((models.at or {}).values()) | set(models.shares or {})
    rest = models.at is not None or sum((models.shares or {}).values()) < 1
    kinds = [*([MODEL] if rest or MODEL in given else []), *models.kinds]
    return {kind: kind_config(config, kind) for kind in kinds}


def shared_of(config: RunConfig, arrays: Mapping[str, T]) -> dict[str, T]:
    """Of a model's parameters or buffers by name those that are sent and averaged."""
    private = private_rule(config.clients.private)
    return {name: value for name, value in arrays.items() if not private(name)}


def check_private(config: RunConfig, model: Classifier) -> None:
    """Refuse ``clients.private`` that names nothing of a model, or all that it trains.

    Raises:
        ConfigError: names the setting and the model's parameters.
    """
    if not config.clients.private:
        return
    trained = list(parameters_of(model))
    kept_by = {name: registry.flags("strategy", name).get("needs_private", ()) for name in config.strategy}
    configured = private_rule(config.clients.private)
    for method, wanted in kept_by.items():
        kept = private_rule(wanted)
        if wanted and any(kept(name) != configured(name) for name in trained):
            raise ConfigError(
                f"strategy '{method}' keeps {' and '.join(wanted)} of each model at its client, no more and no less; "
                f"set clients.private={list(wanted)}"
            )
    known = [*trained, *buffers_of(model)]
    for one in config.clients.private:
        if not any(map(private_rule([one]), known)):
            raise ConfigError(
                f"clients.private={one}: {config.model['name']} has no trained parameter or buffer of that name, "
                f"beginning or pattern; it has {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
            )
    if not any(kept_by.values()) and not shared_of(config, dict.fromkeys(trained, 0)):
        raise ConfigError(
            f"clients.private={list(config.clients.private)} leaves nothing of {config.model['name']} to average: "
            "leave some of it out"
        )


@dataclass(frozen=True)
class Layout:
    """What of each kind's model is averaged among whom.

    Attributes:
        configs: of each kind, by its name.
        alike: names of the parameters and buffers that are averaged over the clients of all kinds.
    """

    configs: Mapping[str, RunConfig]
    alike: frozenset[str] = frozenset()

    @staticmethod
    def of(
        config: RunConfig, n_classes: int, input_shape: tuple[int, ...], kinds: Iterable[str] | None = None
    ) -> "Layout":
        """The layout of a run's kinds.

        Args:
            config, n_classes, input_shape: of the run.
            kinds: those that clients train; None: all that they may.

        Raises:
            ConfigError: ``average: alike``, but the kinds have no first layers alike; or see `check_private`.
        """
        configs = kind_configs(config)
        if kinds is not None:
            used = set(kinds)
            configs = {kind: own for kind, own in configs.items() if kind in used}
        models = {kind: build_model(own, n_classes, input_shape) for kind, own in configs.items()}
        for kind, model in models.items():
            check_private(configs[kind], model)
        if config.clients.models is None or config.clients.models.average != "alike" or len(models) < 2:
            return Layout(configs)
        names = [own.model["name"] for own in configs.values()]
        alike = _alike(names, list(models.values()))
        shared = frozenset(shared_of(config, dict.fromkeys(alike, 0)))
        if not shared:
            raise ConfigError(
                f"clients.models.average=alike: the networks {', '.join(configs)} have no first layers alike in name, "
                "shape and type, and the mean of others would mix features that mean different things; use "
                "clients.models.average=kind"
            )
        return Layout(configs, shared)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group of weights -> the kinds whose clients it is averaged over; its name is in front of its weights."""
        shared = {SHARED: tuple(self.configs)} if self.alike else {}
        return shared | {kind: (kind,) for kind in self.configs}

    def private(self, kind: str, model: nn.Module) -> dict[str, np.ndarray]:
        """What of a kind's model stays at each client: parameters and buffers by name, with the model's values."""
        return Resident(model, private_rule(self.configs[kind].clients.private)).private()

    def part(self, group: str, arrays: Mapping[str, T]) -> dict[str, T]:
        """Of a kind's shared parameters or buffers those that belong to a group."""
        return {name: value for name, value in arrays.items() if (name in self.alike) == (group == SHARED)}


def arrays_of_kind(kind: str, arrays: Mapping[str, T]) -> dict[str, T]:
    """A kind's own weights from those of all groups, which are named ``<group>/<name>``."""
    found = {}
    for key, value in arrays.items():
        group, _, name = key.partition("/")
        if group in (kind, SHARED):
            found[name] = value
    return found


def _alike(names: Sequence[str], models: Sequence[nn.Module]) -> set[str]:
    """Names of the parameters and buffers of the first layers that all these models have alike.

    Layers count in the order in which they are defined, up to the first that differs in name, type or shape in any
    model: what comes after it has other features as input, so that its weights mean something else although they may
    look alike. Models of two classes have none.
    """
    if len(set(names)) > 1:
        return set()
    found: set[str] = set()
    layers = [[(n, m) for n, m in model.named_modules() if _own(m) or not any(m.children())] for model in models]
    for position in zip(*layers, strict=False):
        if len({(name, type(layer), tuple(_own(layer).items())) for name, layer in position}) > 1:
            break
        name, layer = position[0]
        found |= {f"{name}.{own}" if name else own for own in _own(layer)}
    return found


def _own(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's own parameters and buffers, by name."""
    own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    return {name: tuple(value.shape) for name, value in own}
