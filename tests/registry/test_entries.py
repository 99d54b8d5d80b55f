import importlib
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from fedimb import registry
from fedimb.contracts.base import Contract
from fedimb.errors import ConfigError, RunFailed, error_from, traceback_of
from fedimb.strategies.plain import Plain


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    with registry.isolated():
        yield


class Toy:
    def __init__(
        self,
        n_classes: int,
        rate: float,
        hidden: tuple[int, ...] = (8,),
        mode: Literal["a", "b"] = "a",
        shape: "NotImportedHere" = None,  # type: ignore[name-defined]  # noqa: F821
    ) -> None:
        self.args = (n_classes, rate, hidden, mode, shape)


def test_build_passes_only_the_given_that_is_asked_for() -> None:
    registry.register("model", "toy", stackable=True)(Toy)
    built = registry.build("model", "toy", given={"n_classes": 3, "prior": "unused"}, rate=1, hidden=[4, 2])
    assert built.args == (3, 1.0, (4, 2), "a", None)
    assert type(built.args[1]) is float
    assert registry.flags("model", "toy") == {"stackable": True}


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({}, "model 'toy' needs rate: give rate=..."),
        ({"rat": 1}, "model 'toy' has no argument 'rat'. Did you mean 'rate'?"),
        ({"rate": True}, "model 'toy': rate=True: input should be a valid number"),
        ({"rate": "1"}, "model 'toy': rate='1': input should be a valid number"),
        ({"rate": None}, "model 'toy': rate=None: input should be a valid number"),
        (
            {"rate": 1, "hidden": [1, 2.5]},
            "model 'toy': hidden=[1, 2.5]: [1] input should be a valid integer",
        ),
        ({"rate": 1, "mode": "c"}, "model 'toy': mode='c': input should be 'a' or 'b'"),
        ({"rate": 1, "n_classes": 2}, "model 'toy': 'n_classes' is passed by fedimb itself; remove it"),
    ],
)
def test_wrong_arguments_are_one_line(args: dict[str, Any], line: str) -> None:
    registry.register("model", "toy")(Toy)
    with pytest.raises(ConfigError) as caught:
        registry.check_args("model", "toy", args, given=("n_classes",))
    assert str(caught.value) == line


def test_an_annotation_for_type_checkers_only_is_not_checked() -> None:
    registry.register("model", "toy")(Toy)
    assert registry.check_args("model", "toy", {"rate": 1, "shape": [1, "x"]}, given=("n_classes",)) == {
        "rate": 1.0,
        "shape": [1, "x"],
    }


def test_an_open_ended_factory_takes_anything_but_the_given() -> None:
    @registry.register("loss", "toy_open")
    def toy_open(prior: Any = None, **rest: Any) -> Any:
        return rest

    assert registry.check_args("loss", "toy_open", {"x": "1"}, given=("prior",)) == {"x": "1"}
    assert registry.accepted("loss", "toy_open", {"x": 1}) == {"x": 1}
    with pytest.raises(ConfigError, match="passed by fedimb itself"):
        registry.check_args("loss", "toy_open", {"prior": 1}, given=("prior",))


def test_accepted_picks_the_named() -> None:
    registry.register("client", "toy")(Toy)
    assert registry.accepted("client", "toy", {"rate": 1, "other": 2}) == {"rate": 1}


def test_unknown_names_and_kinds() -> None:
    with pytest.raises(ConfigError, match=r"^no sampler 'shufle'\. Did you mean 'shuffle'\?$"):
        registry.get("sampler", "shufle")
    with pytest.raises(ConfigError, match=r"^no kind 'los'\. Did you mean 'loss'\?$"):
        registry.get("los", "ce")
    with pytest.raises(ConfigError, match=r"^cannot register 'x': no kind 'los'\."):
        registry.register("los", "x")


def test_a_renamed_kind_is_found_under_its_old_name_and_the_warning_names_the_new() -> None:
    with pytest.warns(DeprecationWarning, match=r"^the kind 'term' is called 'objective' now"):
        registry.register("term", "toy_old")(Toy)
    assert registry.get("objective", "toy_old").kind == "objective"
    with pytest.warns(DeprecationWarning, match=r"^the kind 'term' is called 'objective' now"):
        assert registry.get("term", "moon") is registry.get("objective", "moon")
    with pytest.warns(DeprecationWarning, match=r"^the kind 'term' is called 'objective' now"):
        assert "moon" in registry.names("term")


def test_an_entry_point_in_the_group_of_the_old_kind_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_package.py").write_text("class Pull:\n    flags = {'stackable': True}\n")
    info = tmp_path / "toy_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedimb.term]\ntoy_pull = toy_package:Pull\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(DeprecationWarning, match=r"'toy_pull' is in the group fedimb\.term: .* fedimb\.objective now"):
        assert registry.get("objective", "toy_pull").flags == {"stackable": True}


def test_two_parts_cannot_share_a_name() -> None:
    def other() -> None: ...

    registry.register("loss", "toy")(Toy)
    registry.register("loss", "toy")(Toy)
    with pytest.raises(ConfigError, match=r"^loss 'toy' is registered twice: by .*Toy and .*other; rename one$"):
        registry.register("loss", "toy")(other)


def test_isolated_forgets() -> None:
    with registry.isolated():
        registry.register("loss", "toy_gone")(Toy)
        assert "toy_gone" in registry.names("loss")
        registry.get("loss", "ce")
    assert "toy_gone" not in registry.names("loss")
    assert "ce" in registry.names("loss")


def test_isolated_forgets_objects_of_the_packages_own_classes() -> None:
    """A contract is an object of a class of the package: what counts is who registered it."""
    with registry.isolated():
        registry.register("contract", "toy_gone")(Contract("toy_gone"))
        registry.register("strategy", "toy_gone")(Plain)
        assert registry.names("contract").count("toy_gone") == 1
    assert "toy_gone" not in registry.names("contract")
    assert "toy_gone" not in registry.names("strategy")


def test_two_contracts_cannot_share_a_name() -> None:
    registry.get("contract", "scope")
    again = registry.register("contract", "scope")
    with pytest.raises(ConfigError, match=r"'scope' is registered twice: by .*contracts\.scope.* and .*test_entries"):
        again(Contract("scope"))


def test_an_installed_package_adds_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "afar-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: afar\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedimb.loss]\nafar = afar_parts:Afar\n")
    (tmp_path / "afar_parts.py").write_text(
        "class Afar:\n    flags = {'needs_prior': True}\n    def __init__(self, prior, gamma: float): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.flags("loss", "afar") == {"needs_prior": True}
    assert registry.check_args("loss", "afar", {"gamma": 2}, given=("prior",)) == {"gamma": 2.0}


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = importlib.import_module(registry.KINDS["sampler"])
    (tmp_path / "toy_needy.py").write_text("import no_such_package_here\n")
    monkeypatch.setattr(samplers, "__path__", [*samplers.__path__, str(tmp_path)])
    with pytest.raises(ConfigError, match=r"sampler 'toy_needy'.*needs the Python package 'no_such_package_here'"):
        registry.get("sampler", "toy_needy")


def test_a_value_that_a_part_refuses_is_one_line_with_its_name():
    with pytest.raises(ConfigError, match=r"^objective 'proximal': mu must be >= 0 and finite; got -1\.0$"):
        registry.build("objective", "proximal", mu=-1.0)


def test_a_mistake_in_a_parts_constructor_keeps_its_traceback() -> None:
    with registry.isolated():

        @registry.register("sampler", "crooked")
        class Crooked:
            def __init__(self) -> None:
                int("three")  # the author's mistake, not a refused setting

        with pytest.raises(ConfigError, match=r"^sampler 'crooked': invalid literal for int.*$") as caught:
            registry.build("sampler", "crooked")
    assert "\n" not in str(caught.value)
    assert 'int("three")  # the author\'s mistake' in traceback_of(caught.value)
    sent = pickle.loads(pickle.dumps(caught.value))  # from a worker process
    assert traceback_of(sent) == traceback_of(caught.value)


@dataclass(frozen=True)
class CrookedSettings:
    rate: float

    def __post_init__(self) -> None:
        math.sqrt(self.rate)


class Crooked:
    def __init__(self, settings: CrookedSettings) -> None:
        self.settings = settings


def test_a_refusal_in_a_settings_dataclass_of_a_part_keeps_its_traceback() -> None:
    with registry.isolated():
        registry.register("sampler", "crooked")(Crooked)
        with pytest.raises(ConfigError, match=r"^sampler 'crooked': math domain error$") as caught:
            registry.check_args("sampler", "crooked", {"rate": -1.0})
    assert "math.sqrt(self.rate)" in traceback_of(caught.value)


def test_an_error_that_a_part_raises_on_purpose_needs_no_traceback() -> None:
    with pytest.raises(ConfigError) as caught:
        registry.build("objective", "proximal", mu=-1.0)
    assert traceback_of(caught.value) == ""
    again = RunFailed(f"{caught.value}; continue with ...")
    again.__cause__ = caught.value
    assert traceback_of(again) == ""
    assert "ZeroDivisionError" in traceback_of(ZeroDivisionError())


def test_the_traceback_is_shown_although_the_error_was_raised_again() -> None:
    again = RunFailed("after fixing the cause: ...")
    again.__cause__ = error_from(ConfigError, "sampler 'crooked': no", ValueError("no"))
    assert traceback_of(again) == "ValueError: no"
