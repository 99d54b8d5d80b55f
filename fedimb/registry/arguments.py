"""A part's arguments: their names, types, defaults and docs; checks of a value against its type and range.

A factory names its arguments itself, or takes them as one parameter ``settings`` annotated with a frozen dataclass:
then the dataclass's fields are its arguments.
"""

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from types import FunctionType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from fedimb.errors import ConfigError

T = TypeVar("T")


def _once_per_factory(read: Callable[[Callable[..., Any]], T]) -> Callable[[Callable[..., Any]], T]:
    """Remember what is read from a class or function: a run asks hundreds of times, and signatures are slow to read.

    Another callable need not be hashable, and is read each time.
    """
    known = lru_cache(maxsize=1024)(read)

    @wraps(read)
    def remembered(factory: Callable[..., Any]) -> T:
        return known(factory) if isinstance(factory, type | FunctionType) else read(factory)

    return remembered


@_once_per_factory
def settings_class(factory: Callable[..., Any]) -> type[Any] | None:
    """The frozen dataclass of the parameter ``settings``; None for a factory that names its arguments itself."""
    parameter = inspect.signature(factory).parameters.get("settings")
    if parameter is None:
        return None
    annotation = annotation_of(factory, parameter)
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and dataclasses.is_dataclass(option) and option.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            return option
    return None


def parameters_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """A factory's arguments by name; a dataclass of settings, with ``**fields``, counts as its fields."""
    return dict(_parameters_of(factory))


@_once_per_factory
def _parameters_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    own = dict(inspect.signature(factory).parameters)
    settings = settings_class(factory)
    if settings is None:
        return own
    kept = {k: p for k, p in own.items() if k != "settings" and p.kind is not p.VAR_KEYWORD}
    types = field_types(settings)
    for field in dataclasses.fields(settings):
        if field.init:
            kept[field.name] = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=types[field.name]
            )
    return kept


def field_types(settings: type[Any]) -> Mapping[str, Any]:
    """The type of each field of a dataclass; Any for all if one type is imported for type checkers only."""
    try:
        return get_type_hints(settings, include_extras=True)
    except NameError:
        return {field.name: Any for field in dataclasses.fields(settings)}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty if field.default_factory is dataclasses.MISSING else field.default_factory()


def docs_of(factory: Callable[..., Any]) -> Mapping[str, str]:
    """What each argument means, by name: from ``Args:`` or ``Attributes:`` of the docstring, or of its settings'."""
    documented = settings_class(factory) or factory
    classes = reversed(inspect.getmro(documented)) if isinstance(documented, type) else (documented,)
    return {name: text for each in classes for name, text in argument_docs(each.__doc__ or "").items()}


def argument_docs(docstring: str) -> dict[str, str]:
    """What a docstring says about each argument, on one line; ``a, b: ...`` describes both."""
    text = inspect.cleandoc(docstring)
    section = re.search(r"^(?:Args|Attributes):\n(.*?)(?:\n\s*\n|\Z)", text, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc("\n" + section[1]).splitlines() if section else ():
        entry = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        names = entry[1].split(", ") if entry else names
        words = entry[2] if entry else line.strip()
        found |= {name: words if entry else f"{found[name]} {words}" for name in names}
    return found


def annotation_of(factory: Any, parameter: inspect.Parameter) -> Any:
    """The type to check against; Any without an annotation, or if its type is imported for type checkers only."""
    note = parameter.annotation
    if note is inspect.Parameter.empty:
        return Any
    if isinstance(note, str):
        code = factory.__init__ if inspect.isclass(factory) else inspect.unwrap(factory)
        try:
            return eval(note, getattr(code, "__globals__", {}))  # what inspect.get_annotations does, one at a time
        except NameError:
            return Any
    return note


def typed(annotation: Any, value: Any) -> Any:
    """``value`` converted to the annotated type; raises a one-line ValueError if it does not fit."""
    from pydantic import ValidationError

    adapter = _adapter(annotation)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # an object passed from Python, not from a configuration
        text = None
    try:
        # JSON mode is strict about numbers but accepts a list for a tuple, which strict Python mode refuses
        return adapter.validate_python(value) if text is None else adapter.validate_json(text, strict=True)
    except ValidationError as error:
        where, *others = [_place(problem["loc"]) for problem in error.errors()]
        kinds = [where == other for other in (where, *others)]  # of a union every kind that it is not, at one place
        said = dict.fromkeys(problem["msg"] for problem, own in zip(error.errors(), kinds, strict=True) if own)
        first, *more = [f"{one[:1].lower()}{one[1:]}" for one in said]
        more = [one.removeprefix("input should be ") for one in more]
        raise ValueError(f"{where} {' or '.join([first, *more])}".strip()) from None


def _place(path: Sequence[int | str]) -> str:
    return "".join(f"[{step}]" for step in path if isinstance(step, int))


@lru_cache(maxsize=1024)
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a model or dataclass brings its own configuration
        return TypeAdapter(annotation)


def in_range(
    part: str,
    key: str,
    value: float,
    low: float,
    high: float = math.inf,
    *,
    low_allowed: bool = True,
    high_allowed: bool = True,
) -> float:
    """Return ``value`` if it is finite and low <= value <= high (< unless ``low_allowed``, ``high_allowed``).

    Args:
        part: kind and name for the message, e.g. ``loss 'focal'``.

    Raises:
        ConfigError: otherwise, with the part, the argument, its value and the range.
    """
    return Range(low, high, low_allowed=low_allowed, high_allowed=high_allowed).check(part, key, value)


@dataclasses.dataclass(frozen=True)
class Range:
    """The allowed values of a number, declared with its type: ``rate: Annotated[float, Range(0, 1)] = 0.5``.

    Checked with a configuration, before a run folder exists, and by a method's `fedimb.contracts.settings.Settings`.
    Values are finite. A setting that may be null: ``Annotated[float | None, Range(0)]``.

    Args:
        low, high: the bounds.
        low_allowed, high_allowed: whether the bounds themselves are allowed.
    """

    low: float
    high: float = math.inf
    low_allowed: bool = dataclasses.field(default=True, kw_only=True)
    high_allowed: bool = dataclasses.field(default=True, kw_only=True)

    def check(self, part: str, key: str, value: float, hint: str = "") -> float:
        """Return ``value`` if it is in the range.

        Args:
            part, key: for the message, as in `in_range`.
            hint: added to the remedy.

        Raises:
            ConfigError: otherwise, with the part, the argument, its value and the range.
        """
        finite = not isinstance(value, float) or math.isfinite(value)
        above = self.low <= value if self.low_allowed else self.low < value
        below = value <= self.high if self.high_allowed else value < self.high
        if finite and above and below:
            return value
        lower = f"{'of at least' if self.low_allowed else 'above'} {self.low:g}"
        upper = "" if self.high == math.inf else f" and {'at most' if self.high_allowed else 'less than'} {self.high:g}"
        raise ConfigError(f"{part}: {key}={value}: give a finite number {lower}{upper}{hint}")


Positive = Annotated[float, Range(0, low_allowed=False)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, high_allowed=False)]
"""Of a momentum or a moving average."""
Count = Annotated[int, Range(0)]
PositiveCount = Annotated[int, Range(1)]


def range_of(annotation: Any) -> Range | None:
    """The `Range` declared in an annotation."""
    return next((one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Range)), None)


def check_ranges(part: str, types: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Check every value whose type declares a `Range`.

    Args:
        part: kind and name for the message.
        types, values: by argument.

    Raises:
        ConfigError: see `Range.check`.
    """
    for key, value in values.items():
        if value is not None and (allowed := range_of(types.get(key))) is not None:
            optional = type(None) in get_args(get_args(types[key])[0])
            allowed.check(part, key, value, ", or null" if optional else "")
