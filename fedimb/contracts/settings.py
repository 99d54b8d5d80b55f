"""A method's settings: one frozen dataclass per method, shared by its server side, its client side and its YAML."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from fedimb.errors import ConfigError, nearest
from fedimb.registry.arguments import check_ranges, field_types, in_range, typed


@dataclass(frozen=True)
class Settings:
    """Base class of a method's settings: the only place that defines their names, types, defaults and ranges.

    A subclass lists its fields under ``Attributes:``, a line each (`fedimb list strategies` prints them), and declares
    the range of each number with its type: ``rate: Annotated[float, Range(0, 1)] = 0.5``, or ``rate: Share = 0.5`` (see
    `fedimb.registry.arguments.Range`). Both sides take them as their parameter ``settings``:

    ```python
    class Mine(Method):
        def __init__(self, inner: Strategy, settings: MineSettings | None = None, **fields: object) -> None:
            super().__init__(inner)
            self.settings = MineSettings.of(settings, fields)
    ```

    so that ``Mine(FedAvg(), rate=0.2)`` and ``Mine(FedAvg(), MineSettings(rate=0.2))`` are the same, and a
    configuration's ``strategy.mine.rate=0.2`` as well.

    Attributes:
        method: the registered name of the method.

    Raises:
        ConfigError: a value of the wrong type, or a number out of range.
    """

    method: ClassVar[str]

    def __post_init__(self) -> None:
        """Bring each value to its annotated type (1 to 1.0), mappings as copies, and check ranges."""
        types = field_types(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, typed(types[field.name], value))
            except ValueError as error:
                raise ConfigError(f"strategy.{self.method}: {field.name}={value!r}: {error}") from None
        check_ranges(f"strategy.{self.method}", types, vars(self))

    def require(self, name: str, low: float, high: float = float("inf")) -> None:
        """Refuse a field that is not within [low, high], a range that depends on other fields; None is accepted.

        Raises:
            ConfigError: with the setting, its value and the range.
        """
        if (value := getattr(self, name)) is not None:
            in_range(f"strategy.{self.method}", name, value, low, high)

    def part(self, name: str) -> tuple[str, dict[str, Any]]:
        """The name and the arguments of the registered part that a field ``{name: ..., ...}`` chooses.

        Raises:
            ConfigError: the field has no name.
        """
        args = dict(getattr(self, name))
        if not isinstance(chosen := args.pop("name", None), str):
            raise ConfigError(f"strategy.{self.method}.{name}={getattr(self, name)}: give a name: {{name: ..., ...}}")
        return chosen, args

    @classmethod
    def of(cls, settings: Self | None, changes: Mapping[str, object]) -> Self:
        """The settings to use: ``settings``, or the defaults, with the fields in ``changes`` replaced.

        Raises:
            ConfigError: a field that does not exist, settings of another method, or a value that is refused.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in changes if name not in known]:
            raise ConfigError(f"strategy.{cls.method} has no setting '{unknown[0]}'.{nearest(unknown[0], known)}")
        if settings is None:
            return cls(**changes)
        if not isinstance(settings, cls):
            given = type(settings).__name__
            raise ConfigError(
                f"strategy.{cls.method}: settings is a {given}: give {cls.__name__}(...), or its fields by name"
            )
        return replace(settings, **changes) if changes else settings
