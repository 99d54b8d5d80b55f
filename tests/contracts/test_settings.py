"""A method's settings stand once: halves, YAML and docs agree with the dataclass of its contract file."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import pytest
from flwr.serverapp.strategy import FedAvg, Strategy
from small_runs import needs_of_methods

from fedimb import registry
from fedimb.clients.base import Client
from fedimb.config.compose import compose
from fedimb.config.validate import GIVEN, validate
from fedimb.contracts.fedssg import FedSSGSettings
from fedimb.contracts.scope import ScopeSettings
from fedimb.contracts.settings import Settings
from fedimb.errors import ConfigError
from fedimb.generation.settings import settings_from
from fedimb.generation.sharing_plan import Plan
from fedimb.generation.training import Training
from fedimb.privacy.audit.types import GateSettings
from fedimb.registry.arguments import (
    Count,
    annotation_of,
    argument_docs,
    docs_of,
    field_types,
    range_of,
    settings_class,
    typed,
)
from fedimb.strategies.active import Active
from fedimb.strategies.base import Method
from fedimb.strategies.coreset import Coreset
from fedimb.strategies.fairfal import FairFAL
from fedimb.strategies.fedssg import FedSSG
from fedimb.strategies.public import Public
from fedimb.strategies.scope import Scope

METHODS = registry.names("strategy")


def class_of(kind: str, name: str) -> type[Any] | None:
    return settings_class(registry.get(kind, name).factory)


def defaults(name: str) -> dict[str, Any]:
    """The settings of a method's server half that a user may give, by default."""
    found = registry.parameters("strategy", name)
    return {key: parameter.default for key, parameter in found.items() if key not in GIVEN["strategy"]}


@pytest.mark.parametrize("name", METHODS)
def test_both_halves_take_one_frozen_dataclass_of_the_contract_file(name: str) -> None:
    settings = class_of("strategy", name)
    assert class_of("client", name) is settings
    if settings is None:
        assert defaults(name) == {}, "settings belong in a dataclass in the contract file: docs/add-a-strategy.md, 4"
        return
    assert issubclass(settings, Settings)
    assert settings.method == name
    assert settings.__module__ == f"fedimb.contracts.{name}"
    with pytest.raises(FrozenInstanceError):
        setattr(settings(), fields(settings)[0].name, None)


@pytest.mark.parametrize("name", METHODS)
def test_the_yaml_has_the_names_defaults_and_types_of_the_dataclass(name: str) -> None:
    written = compose([f"strategy={name}"])["strategy"][name]
    assert written == defaults(name)
    annotations = {key: p.annotation for key, p in registry.parameters("strategy", name).items()}
    for key, value in written.items():
        assert type(value) is type(defaults(name)[key]), key
        assert typed(annotations[key], value) == value
    assert validate(compose([f"strategy={name}", *needs_of_methods(name)])).strategy[name] == written


@pytest.mark.parametrize("name", METHODS)
def test_every_field_has_its_line_and_no_line_is_stale(name: str) -> None:
    settings = class_of("strategy", name)
    if settings is None:
        return
    docs = docs_of(registry.get("strategy", name).factory)
    assert all(docs[field.name] for field in fields(settings))
    own = argument_docs(settings.__doc__ or "")
    assert set(own) <= {field.name for field in fields(settings)}
    assert list(own) == [field.name for field in fields(settings) if field.name in own], "in the order of the fields"


def test_nested_settings_are_the_defaults_of_the_classes_they_become() -> None:
    settings = FedSSGSettings()
    assert settings_from("plan", Plan, settings.plan) == Plan()
    assert settings_from("training", Training, settings.training) == Training()
    assert settings_from("audit", GateSettings, settings.audit) == GateSettings()
    with pytest.raises(ConfigError, match=r"no setting 'plan\.taw'\. Did you mean 'tau'"):
        FedSSG(FedAvg(), plan={"taw": 1})


@pytest.mark.parametrize("half", [Active, Coreset, FairFAL, FedSSG, Public, Scope])
def test_a_half_takes_the_dataclass_or_its_fields(half: type[Any]) -> None:
    settings: Any = settings_class(half)
    assert half(FedAvg()).settings == settings()
    field = {"coreset": "keep", "scope": "p_f", "public": "head_lr", "fedssg": "visits"}.get(
        settings.method, "local_stop"
    )
    changed = settings(**{field: 0.25})
    assert half(FedAvg(), **{field: 0.25}).settings == half(FedAvg(), changed).settings == changed
    assert half(FedAvg(), settings(), **{field: 0.25}).settings == changed
    assert registry.build("strategy", settings.method, {"inner": FedAvg()}, **{field: 0.25}).settings == changed
    assert registry.build("client", settings.method, **{field: 0.25}).settings == changed


def test_values_come_as_from_a_configuration_and_are_the_settings_own() -> None:
    encoder = {"name": "global_features"}
    settings = ScopeSettings(p_f=0, encoder=encoder)
    assert type(settings.p_f) is float
    encoder["name"] = "clip"
    assert settings.encoder == {"name": "global_features"}
    assert replace(settings, p_f=0.5) == ScopeSettings()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"warmpu": 3}, "strategy.scope has no setting 'warmpu'. Did you mean 'warmup'?"),
        ({"warmup": "3"}, "strategy.scope: warmup='3': input should be a valid integer"),
        ({"warmup": True}, "strategy.scope: warmup=True: input should be a valid integer"),
        ({"p_f": 2}, "strategy.scope: p_f=2.0: give a finite number of at least 0 and at most 1"),
        ({"beta": float("nan")}, "strategy.scope: beta=nan: give a finite number of at least 0 and at most 1"),
        ({"gamma": float("inf")}, "strategy.scope: gamma=inf: give a finite number of at least 0"),
        ({"sigma": -1}, "strategy.scope: sigma=-1.0: give a finite number of at least 0"),
        ({"min_count": 0}, "strategy.scope: min_count=0: give a finite number of at least 1"),
        ({"gate": "x"}, "strategy.scope: gate='x': input should be 'relative' or 'literal'"),
        ({"encoder": {}}, "strategy.scope.encoder={}: give a name: {name: ..., ...}"),
        (
            {"settings": {"p_f": 0.1}},
            "strategy.scope: settings is a dict: give ScopeSettings(...), or its fields by name",
        ),
        (
            {"settings": FedSSGSettings()},
            "strategy.scope: settings is a FedSSGSettings: give ScopeSettings(...), or its fields by name",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Scope(FedAvg(), **wrong)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("strategy=scope strategy.scope.p_l=-1", "p_l=-1.0: give a finite number of at least 0 and at most 1"),
        ("strategy=coreset strategy.coreset.keep=0", "keep=0.0: give a finite number above 0 and at most 1"),
        ("strategy=active strategy.active.first=0", "strategy.active: first=0: give a finite number of at least 1"),
        (
            "strategy=fairfal strategy.fairfal.budget=0",
            "strategy.fairfal: budget=0: give a finite number of at least 1",
        ),
        (
            "strategy=public strategy.public.use=client strategy.public.weight=-2",
            "weight=-2.0: give a finite number of at least 0",
        ),
        ("strategy=fedssg strategy.fedssg.surplus=0.5", "surplus=0.5: give a finite number of at least 1"),
        ("strategy=fedssg strategy.fedssg.epsilon=0", "epsilon=0.0: give a finite number above 0, or null"),
        ("strategy=fedssg strategy.fedssg.holdout=1", "holdout=1.0: give a finite number above 0 and less than 1"),
        ("aggregator=fedadam aggregator.eta=-1", "aggregator 'fedadam': eta=-1.0: give a finite number above 0"),
        (
            "aggregator=krum aggregator.num_malicious_nodes=-1",
            "num_malicious_nodes=-1: give a finite number of",
        ),
        (
            "aggregator=fedtrimmedavg aggregator.beta=0.5",
            "beta=0.5: give a finite number of at least 0 and less",
        ),
    ],
)
def test_a_range_is_checked_with_the_configuration_before_anything_is_built(words: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose(words.split()))
    assert line in str(caught.value)


def numbers(types: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments whose type is a number, or may be null or one."""
    plain = {key: get_args(note)[0] if get_origin(note) is Annotated else note for key, note in types.items()}
    return {key: types[key] for key, note in plain.items() if any(t in (int, float) for t in (note, *get_args(note)))}


def numbers_of(kind: str, name: str) -> dict[str, Any]:
    factory = registry.get(kind, name).factory
    given = registry.parameters(kind, name).items()
    return numbers({key: annotation_of(factory, p) for key, p in given if key not in GIVEN[kind]})


PARTS = [(kind, name) for kind in ("strategy", "aggregator") for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_number_has_a_range_and_no_other_value_is_accepted(kind: str, name: str) -> None:
    for key, note in numbers_of(kind, name).items():
        allowed = range_of(note)
        assert allowed is not None, f"{kind} '{name}': declare the range of {key} with its type"
        for wrong in (math.nan, math.inf, -math.inf, allowed.low - 1, allowed.high + 1):
            with pytest.raises(ConfigError, match=rf"{name}'?: {key}="):
                registry.check_args(kind, name, {**required(kind, name), key: wrong}, GIVEN[kind])


def required(kind: str, name: str) -> dict[str, Any]:
    found = registry.parameters(kind, name)
    return {k: 0.1 for k, p in found.items() if p.default is p.empty and k not in GIVEN[kind]}


def test_the_settings_of_a_generators_training_have_ranges_too() -> None:
    for key, note in numbers(field_types(Training)).items():
        assert range_of(note) is not None, key
        with pytest.raises(ConfigError, match=f"generator training: {key}=inf: give"):
            Training(**{key: math.inf})
    with pytest.raises(ConfigError, match=r"^training\.steps=1\.5: input should be a valid integer"):
        settings_from("training", Training, {"steps": 1.5})


def test_settings_made_in_python_are_checked_as_well() -> None:
    with pytest.raises(ConfigError, match=r"^strategy\.fedssg: epsilon=inf: give a finite number above 0, or null$"):
        FedSSGSettings(epsilon=math.inf)


@dataclass(frozen=True)
class OwnSettings:
    """Settings of a package of one's own: any frozen dataclass will do.

    Attributes:
        rate: how fast.
        mode: which way,
            up or down.
    """

    rate: float
    mode: Literal["up", "down"] = "up"
    shape: tuple[int, ...] = (1, 2)
    made: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate={self.rate}: give a number above 0")


class Own(Method):
    def __init__(self, inner: Strategy, settings: "OwnSettings") -> None:
        super().__init__(inner)
        self.settings = settings


class OwnClient(Client):
    """Its share of the settings, by name, as halves may take them.

    Args:
        rate: of the client.
    """

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate


@pytest.fixture
def own() -> Iterator[None]:
    with registry.isolated():
        registry.register("strategy", "own")(Own)
        registry.register("client", "own")(OwnClient)
        yield


@pytest.mark.usefixtures("own")
def test_any_frozen_dataclass_named_settings_is_handed_over() -> None:
    args = registry.check_args("strategy", "own", {"rate": 2, "shape": [3]}, given=("inner",))
    assert args == {"rate": 2.0, "shape": (3,)}
    make = registry.maker("strategy", "own", ("inner",), **args)
    first, second = make(inner=FedAvg()), make(inner=FedAvg())
    assert first.settings == OwnSettings(2.0, shape=(3,))
    assert first.settings is second.settings
    assert registry.build("client", "own", **registry.accepted("client", "own", args)).rate == 2.0
    assert docs_of(Own) == {"rate": "how fast.", "mode": "which way, up or down."}
    assert docs_of(OwnClient)["rate"] == "of the client."


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({}, "strategy 'own' needs rate: give rate=..."),
        ({"rate": -1}, "strategy 'own': rate=-1.0: give a number above 0"),
        ({"rate": 1, "mode": "left"}, "strategy 'own': mode='left': input should be 'up' or 'down'"),
        ({"rate": 1, "mdoe": "up"}, "strategy 'own' has no argument 'mdoe'. Did you mean 'mode'?"),
        ({"rate": 1, "settings": {}}, "strategy 'own' has no argument 'settings'. Valid: mode, rate, shape."),
        ({"rate": 1, "inner": 1}, "strategy 'own': 'inner' is passed by fedimb itself; remove it"),
    ],
)
def test_its_wrong_values_are_one_line_too(args: Mapping[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.check_args("strategy", "own", dict(args), given=("inner",))
    assert str(caught.value) == line


def test_the_page_on_adding_a_strategy_shows_what_works() -> None:
    page = (Path(__file__).parents[2] / "docs" / "add-a-strategy.md").read_text()
    (contract, constructor) = re.findall(r"^# toy_method/\w+\.py.*?\n(.*?)(?=^# toy_method|^```)", page, re.M | re.S)
    space: dict[str, Any] = {
        name: value
        for name, value in globals().items()
        if name in ("dataclass", "Settings", "ClassVar", "Strategy", "Any", "Method")
    } | {"Count": Count}
    exec(f"{contract}\nclass Toy(Method):\n{constructor}", space)
    toy = space["Toy"]
    assert (
        toy(FedAvg(), bonus=2).settings
        == space["ToySettings"](bonus=2)
        == toy(FedAvg(), toy(FedAvg()).settings, bonus=2).settings
    )
    assert docs_of(toy)["labels_file"] == "the run waits until this file exists."
    with pytest.raises(ConfigError, match=r"^strategy\.toy: bonus=-1: give a finite number of at least 0$"):
        toy(FedAvg(), bonus=-1)


@dataclass(frozen=True)
class Late:
    """Attributes:
    when: of a type that is imported for type checkers only.
    """

    when: "NotImportedHere" = None  # type: ignore[name-defined]  # noqa: F821


def test_a_field_type_for_type_checkers_only_is_not_checked() -> None:
    class Waits(Method):
        def __init__(self, inner: Strategy, settings: Late | None = None, **fields: object) -> None:
            super().__init__(inner)
            self.settings = settings

    with registry.isolated():
        registry.register("strategy", "late")(Waits)
        assert registry.build("strategy", "late", {"inner": FedAvg()}, when="soon").settings == Late("soon")
