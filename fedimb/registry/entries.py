"""From names in YAML to code: ``build(kind, name, **args)``.

A part is registered by a decorator in a module of its kind's folder, or by an installed package through the
entry-point group ``fedimb.<kind>``. Nothing is imported before it is needed: ``build("loss", "focal")``
first tries the module of that name, and imports the whole folder only if there is no such module.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from fedimb.errors import ConfigError, error_from, nearest

KINDS = {
    "source": "fedimb.data.sources",
    "partition": "fedimb.data.partitioners",
    "model": "fedimb.models",
    "loss": "fedimb.training.losses",
    "sampler": "fedimb.training.samplers",
    "resampler": "fedimb.training.resamplers",
    "objective": "fedimb.training.objectives",
    "augmentation": "fedimb.training.augmentations",
    "calibration": "fedimb.training.calibrations",
    "aggregator": "fedimb.aggregators",
    "attack": "fedimb.attacks",
    "pace": "fedimb.paces",
    "explanation": "fedimb.explanations",
    "encoder": "fedimb.encoders",
    "coreset": "fedimb.selection.coresets",
    "query": "fedimb.selection.queries",
    "generator": "fedimb.generation.generators",
    "strategy": "fedimb.strategies",
    "client": "fedimb.clients",
    "contract": "fedimb.contracts",
}


OLD_KINDS = {"term": "objective"}
"""Kinds under another name than before: the old one, also of the entry-point group, goes with the next release."""

_CHOSEN_BY = {
    "source": "data={name}",
    "objective": "aggregator.objectives=[{name}]",
    "augmentation": "local.augmentation=[{name}]",
    "encoder": "'strategy.coreset.encoder={{name: {name}}}' (or another strategy's encoder)",
    "coreset": "strategy=coreset 'strategy.coreset.rule={{name: {name}}}'",
    "query": "strategy=active 'strategy.active.query={{name: {name}}}'",
    "generator": "strategy=fedssg 'strategy.fedssg.generator={{name: {name}}}'",
}
"""The words that choose a part on the command line, where they are not ``kind=name``."""

TARGETS = {"model": "fedimb.models.base:Classifier"}
"""Kinds whose name may be a dotted path to a user's own class, and the class it must derive from."""


@dataclass(frozen=True)
class Entry:
    """One registered part: its factory (class or function), the flags it declares, the module that registered it."""

    kind: str
    name: str
    factory: Callable[..., Any]
    flags: dict[str, Any] = field(default_factory=dict)
    module: str = ""

    @property
    def origin(self) -> str:
        """Where its code is; for an object that is not a class or function (a contract), where it was registered."""
        written = getattr(self.factory, "__qualname__", None)
        return f"{self.factory.__module__}.{written}" if written else f"{self.module}: {self.kind} '{self.name}'"

    def set_to(self, args: Mapping[str, object]) -> "Entry":
        """The entry with the flags that hold for these settings (from its flag ``when``)."""
        when = self.flags.get("when", {})
        more = [flags for (setting, value), flags in when.items() if args.get(setting) == value]
        return replace(self, flags=dict(ChainMap(*more, self.flags))) if more else self


_entries: dict[tuple[str, str], Entry] = {}


def current_kind(kind: str) -> str:
    """The kind under its present name, with a DeprecationWarning where it was given under an old one."""
    if kind not in OLD_KINDS:
        return kind
    _warn(f"the kind '{kind}' is called '{OLD_KINDS[kind]}' now: use that", 4)
    return OLD_KINDS[kind]


def _warn(text: str, level: int) -> None:
    warnings.warn(text, DeprecationWarning, stacklevel=level)


def register(kind: str, name: str, **flags: object) -> Callable[[Any], Any]:
    """Decorator: make a class or function buildable as ``build(kind, name, ...)``.

    Flags are what other parts may need to know before the part is built (``adjusts_logits``, ``needs_prior``,
    ``linear``, ``needs_individual_updates``, ``stackable``, ``changes_head``). ``when={(setting, value): {flag: ...}}``
    declares flags that hold only with that setting. A class may declare flags in its attribute ``flags`` too.

    Raises:
        ConfigError: unknown kind, or another object already has the name (two copies of a module under two
            names, usually ``import strategies`` instead of ``import fedimb.strategies``).

    Example:
        >>> with isolated():
        ...     @register("sampler", "reversed")
        ...     class Reversed:
        ...         def __init__(self, step: int = 1) -> None:
        ...             self.step = step
        ...     build("sampler", "reversed", step=3).step
        3
    """
    kind = current_kind(kind)
    if kind not in KINDS:
        raise ConfigError(f"cannot register '{name}': no kind '{kind}'.{nearest(kind, KINDS)}")
    module = sys._getframe(1).f_globals["__name__"]

    def add(factory: Any) -> Any:
        old, new = (
            _entries.get((kind, name)),
            Entry(kind, name, factory, {**getattr(factory, "flags", {}), **flags}, module),
        )
        if old is not None and old.origin != new.origin:
            raise ConfigError(f"{kind} '{name}' is registered twice: by {old.origin} and {new.origin}; rename one")
        _entries[(kind, name)] = new
        return factory

    return add


@contextmanager
def isolated() -> Iterator[None]:
    """Parts registered inside the block are forgotten after it: for tests and for trying things out."""
    before = dict(_entries)
    try:
        yield
    finally:
        for key in set(_entries) - set(before):
            # What a module of the package registered stays, because importing it again would not register it again.
            if not f"{_entries[key].module}.".startswith(f"{KINDS[key[0]]}."):
                del _entries[key]


def registered() -> list[Entry]:
    """Every part registered in this process so far; nothing is imported for it."""
    return list(_entries.values())


def _installed(kind: str) -> dict[str, Any]:
    return _points(kind, tuple(sys.path))


@cache
def _points(kind: str, path: tuple[str, ...]) -> dict[str, Any]:
    # Cached per sys.path: reading the metadata of everything installed takes tens of milliseconds.
    points = {point.name: point for point in entry_points(group=f"fedimb.{kind}")}
    for old in (old for old, new in OLD_KINDS.items() if new == kind):
        for point in entry_points(group=f"fedimb.{old}"):
            _warn(f"the entry point '{point.name}' is in the group fedimb.{old}: the group is fedimb.{kind} now", 3)
            points.setdefault(point.name, point)
    return points


@cache
def _scan(kind: str) -> None:
    package = importlib.import_module(KINDS[kind])
    for module in pkgutil.iter_modules(package.__path__):
        _import(f"{KINDS[kind]}.{module.name}", f"{kind}s")
    for name in _installed(kind):
        _load_installed(kind, name)


def _import(module: str, wanted: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "fedimb":
            raise
        raise ConfigError(
            f"cannot load {wanted}: {module} needs the Python package '{error.name}'; install it"
        ) from error


def _load_installed(kind: str, name: str) -> None:
    point = _installed(kind)[name]
    loaded = point.load()
    if (kind, name) not in _entries:  # the package need not use the decorator: the entry point names it
        register(kind, name, **getattr(loaded, "flags", {}))(loaded)
        _entries[(kind, name)] = replace(_entries[(kind, name)], module=point.value.partition(":")[0].strip())


def get(kind: str, name: str) -> Entry:
    """The registered entry; for a model, a dotted path names a user's own class (`fedimb.registry.targets`).

    Raises ConfigError with the nearest valid name."""
    from fedimb.registry.targets import is_path, load_target

    kind = current_kind(kind)
    if kind not in KINDS:
        raise ConfigError(f"no kind '{kind}'.{nearest(kind, KINDS)}")
    if kind in TARGETS and is_path(name):
        module, _, base = TARGETS[kind].partition(":")
        return Entry(kind, name, load_target(kind, name, getattr(importlib.import_module(module), base)))
    if (kind, name) not in _entries:
        module = f"{KINDS[kind]}.{name}"
        if name.isidentifier() and importlib.util.find_spec(module) is not None:
            _import(module, f"{kind} '{name}'")
        elif name in _installed(kind):
            _load_installed(kind, name)
    if (kind, name) not in _entries:
        _scan(kind)
    if (kind, name) not in _entries:
        raise ConfigError(f"no {kind} '{name}'{elsewhere(name, kind) or '.' + nearest(name, names(kind))}")
    return _entries[(kind, name)]


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    kind = current_kind(kind)
    _scan(kind)
    return sorted(name for k, name in _entries if k == kind)


def has_module(kind: str, name: str) -> bool:
    """Whether a module or an installed package provides this part under its own name; imports nothing that does not."""
    spec = importlib.util.find_spec(f"{KINDS[kind]}.{name}") if name.isidentifier() else None
    if spec is None and name not in _installed(kind):
        return False
    try:
        return get(kind, name).name == name
    except ConfigError:  # a module of helpers
        return False


def elsewhere(name: str, kind: str = "") -> str:
    """The end of an error about ``name``, which is not of this kind: what it is instead; empty if it is nothing.

    Example:
        >>> elsewhere("fedavg", "strategy")
        ': it is an aggregator, chosen by aggregator=fedavg.'
    """
    others = []
    for other in KINDS:
        with suppress(ConfigError):  # the folder needs a package that is not installed
            if other not in (kind, "client", "contract") and name in names(other):
                others.append(other)
    return it_is(name, others)


def it_is(name: str, kinds: Iterable[str]) -> str:
    """``: it is an aggregator, chosen by aggregator=fedavg.`` for a name of these kinds; empty if there are none."""
    nouns = {kind: {"data": "data set"}.get(kind, kind) for kind in kinds}
    found = [f"{'an' if n[0] in 'aeiou' else 'a'} {n}, chosen by {chosen_by(kind, name)}" for kind, n in nouns.items()]
    return f": it is {', or '.join(found)}." if found else ""


def chosen_by(kind: str, name: str) -> str:
    """The words that choose a part on the command line."""
    return _CHOSEN_BY.get(kind, kind + "={name}").format(name=name)


def flags(kind: str, name: str) -> dict[str, Any]:
    """The flags a part declares."""
    return get(kind, name).flags


def parameters(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """A part's arguments, including those fedimb passes itself (see `check_args` and `arguments.parameters_of`)."""
    from fedimb.registry.arguments import parameters_of

    return parameters_of(get(kind, name).factory)


def accepted(kind: str, name: str, args: Mapping[str, object]) -> dict[str, Any]:
    """The ``args`` that the factory names (all, if it takes any), e.g. the settings that a client side uses."""
    params = parameters(kind, name)
    if any(p.kind is p.VAR_KEYWORD for p in params.values()):
        return dict(args)
    return {key: value for key, value in args.items() if key in params}


def check_args(kind: str, name: str, args: Mapping[str, object], given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Validate YAML arguments against the factory's signature and annotations; returns them coerced.

    Numbers are strict (no ``"3"``, no ``true`` for an integer); an integer widens to a float, a list becomes
    a tuple where one is wanted, and a number is within the `fedimb.registry.arguments.Range` of its annotation. A
    settings dataclass is built from them, so that its own checks run too.

    Args:
        args: the arguments in the configuration.
        given: parameter names fedimb itself passes when it builds the part (not settable, not missing).

    Raises:
        ConfigError: unknown argument (with the nearest name), missing argument, wrong type, a number out of range, or
            a value that the settings dataclass refuses.
    """
    from fedimb.registry.arguments import annotation_of, check_ranges, settings_class, typed

    params = parameters(kind, name)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in params.values())
    settable = {k: p for k, p in params.items() if k not in given and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    checked: dict[str, Any] = {}
    types: dict[str, Any] = {}
    for key, value in args.items():
        if key in given and key in params:
            raise ConfigError(f"{kind} '{name}': '{key}' is passed by fedimb itself; remove it")
        if key not in settable and not (open_ended and key not in given):
            remedy = nearest(key, settable) or " It takes none."
            raise ConfigError(f"{kind} '{name}' has no argument '{key}'.{remedy}")
        types[key] = annotation_of(get(kind, name).factory, settable[key]) if key in settable else Any
        try:
            checked[key] = typed(types[key], value)
        except ValueError as error:
            raise ConfigError(f"{kind} '{name}': {key}={value!r}: {error}") from None
    missing = [k for k, p in settable.items() if p.default is p.empty and k not in checked]
    if missing:
        raise ConfigError(f"{kind} '{name}' needs {', '.join(missing)}: give {', '.join(k + '=...' for k in missing)}")
    if settings := settings_class(get(kind, name).factory):
        try:
            settings(**checked)
        except ValueError as error:
            raise error_from(ConfigError, f"{kind} '{name}': {error}", error) from error
    check_ranges(f"{kind} '{name}'", types, checked)
    return checked


def maker(kind: str, name: str, given: tuple[str, ...] = (), **args: object) -> Callable[..., Any]:
    """A part checked once and built often: ``maker("loss", "focal", ("prior",), gamma=2)(prior=counts)``.

    Only arguments that a factory names are passed on: a loss that needs no prior need not mention it. A factory that
    takes a settings dataclass gets one, the same for every part built.

    Args:
        given: names of what fedimb passes itself, as keywords of the returned function; the user cannot set them.

    Raises:
        ConfigError: see `get` and `check_args`; from the function it returns, the part's own, or one line for its
            ValueError, whose traceback is then shown below (see `fedimb.errors.error_from`).
    """
    from fedimb.registry.arguments import settings_class

    checked = check_args(kind, name, args, given)
    factory, wanted = get(kind, name).factory, parameters(kind, name).keys() & set(given)
    settings = settings_class(factory)
    own = checked if settings is None else {"settings": settings(**checked)}

    def make(**values: object) -> Any:
        try:
            return factory(**own, **{k: v for k, v in values.items() if k in wanted})
        except ValueError as error:  # a refused value, or a mistake in the part: only its author can tell
            raise error_from(ConfigError, f"{kind} '{name}': {error}", error) from error

    return make


def build(kind: str, name: str, given: Mapping[str, object] | None = None, **args: object) -> Any:
    """Build a part by name. ``given`` holds what fedimb passes itself and the user cannot set (see `maker`).

    Example:
        >>> build("loss", "focal", gamma=2).gamma
        2.0
        >>> build("loss", "focal", gama=2)
        Traceback (most recent call last):
            ...
        fedimb.errors.ConfigError: loss 'focal' has no argument 'gama'. Did you mean 'gamma'?
    """
    given = given or {}
    return maker(kind, name, tuple(given), **args)(**given)
