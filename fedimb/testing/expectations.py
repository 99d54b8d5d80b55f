"""Building blocks of contract checks: rules with expected and actual values, and parts built as their YAML says."""

import contextlib
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from fedimb import registry
from fedimb.config.catalogue import Catalogue
from fedimb.config.validate import GIVEN
from fedimb.data.placement import KEYS as PLACEMENT


class ContractError(AssertionError):
    """A part breaks the contract of its kind; the message has the part, the rule, what was expected and what was found.

    It is an `AssertionError`, so a test fails as with any ``assert``.
    """


class Contract:
    """The rules of one part, checked one after another.

    Args:
        kind, name: as registered.
        case: which of several cases is checked, for the message.
    """

    def __init__(self, kind: str, name: str, case: str = "") -> None:
        self.part = f"{kind} '{name}'"
        self.where = f" ({case})" if case else ""
        self.rule_name = ""

    @contextlib.contextmanager
    def rule(self, text: str) -> Iterator[None]:
        """Name the rule checked inside the block; any error raised there breaks it."""
        before, self.rule_name = self.rule_name, text
        try:
            yield
        except ContractError:
            raise
        except Exception as error:
            raise self._broken("no error", f"{type(error).__name__}: {error}") from error
        finally:
            self.rule_name = before

    def expect(self, holds: object, expected: str, found: object) -> None:
        """Raise unless ``holds``.

        Raises:
            ContractError: with the part, the rule, ``expected`` and ``found``.
        """
        if not holds:
            raise self._broken(expected, _shown(found))

    def equal(self, found: object, expected: object, what: str = "") -> None:
        """Raise unless both are equal: tensors and arrays bit for bit, also in dtype and shape."""
        self.expect(same(found, expected), f"{what}{': ' if what else ''}{_shown(expected)}", found)

    def finite(self, values: Tensor | np.ndarray, what: str) -> None:
        """Raise if the values contain NaN or infinity."""
        found = values.detach().numpy() if isinstance(values, Tensor) else values
        self.expect(np.isfinite(found).all(), f"{what} without NaN or infinity", found)

    @contextlib.contextmanager
    def refuses(self, errors: type[Exception] | tuple[type[Exception], ...], says: str) -> Iterator[None]:
        """The block must raise one of these errors, with a message that matches the pattern ``says``."""
        kinds = errors if isinstance(errors, tuple) else (errors,)
        expected = f"{' or '.join(kind.__name__ for kind in kinds)} that says '{says}'"
        try:
            yield
        except kinds as error:
            self.expect(re.search(says, str(error)), expected, str(error))
            return
        raise self._broken(expected, "no error")

    @contextlib.contextmanager
    def own_randomness(self) -> Iterator[None]:
        """Raise if the block draws from the global generators of torch, NumPy or Python."""
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
        yield
        self.expect(torch.equal(before[0], torch.get_rng_state()), "torch's global generator as it was", "drawn from")
        after = np.random.get_state()[1].tolist()  # type: ignore[index]
        self.expect(before[1] == after, "NumPy's global generator as it was", "drawn from")
        self.expect(before[2] == random.getstate(), "Python's global generator as it was", "drawn from")

    def _broken(self, expected: str, found: str) -> ContractError:
        return ContractError(f"{self.part}{self.where}: {self.rule_name}: expected {expected}; found {found}")


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    if isinstance(value, Tensor | np.ndarray):
        text = f"{value.dtype} {list(value.shape)} {text}"
    return text if len(text) <= 300 else text[:297] + "..."


def same(one: Any, two: Any) -> bool:
    """Whether two values are equal bit for bit: arrays and tensors also in dtype and shape, NaN equal to NaN."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        one, two = one.detach().numpy(), two.detach().numpy()
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        one, two = np.asarray(one), np.asarray(two)
        nan = one.dtype.kind in "fc"
        return one.dtype == two.dtype and one.shape == two.shape and bool(np.array_equal(one, two, equal_nan=nan))
    return bool(one == two) or (one != one and two != two)  # NaN


def _yaml(kind: str, name: str) -> dict[str, Any]:
    for root in Catalogue().roots:
        path = Path(root) / kind / f"{name}.yaml"
        if path.is_file():
            found = yaml.safe_load(path.read_text()) or {}
            return {key: value for key, value in found.items() if key not in _NOT_ARGUMENTS}
    return {}


_NOT_ARGUMENTS = ("name", "objectives", *PLACEMENT)  # objectives: local objectives of an aggregator, separate parts


def _elsewhere(value: Any) -> bool:
    """Whether a setting refers to another setting of the run."""
    return "${" in str(value)


def yaml_settings(kind: str, name: str) -> dict[str, Any]:
    """The settings in the YAML of a part, fedimb's or an installed package's; {} if it has none.

    Settings that refer to others of the run (``${...}``) keep the part's defaults.
    """
    return {key: value for key, value in _yaml(kind, name).items() if not _elsewhere(value)}


def build(kind: str, name: str, settings: Mapping[str, Any], **given: Any) -> Any:
    """A part as its YAML configures it, with ``settings`` replacing those in the YAML.

    Args:
        given: arguments that fedimb itself passes when it builds such a part.
    """
    return registry.build(kind, name, given, **(yaml_settings(kind, name) | dict(settings)))


def check_yaml(contract: Contract, kind: str, name: str) -> None:
    """Check that the settings in the YAML are arguments of the part, with the right types."""
    with contract.rule("its YAML fits its arguments"):
        settings, given = _yaml(kind, name), GIVEN[kind]
        parameters = registry.parameters(kind, name)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            known = parameters.keys() - set(given)
            contract.expect(settings.keys() <= known, f"settings of {sorted(known)}", settings)
        if not any(map(_elsewhere, settings.values())):
            registry.check_args(kind, name, settings, given=given)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normally distributed numbers from a separate seed."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


COUNTS: dict[str, list[int]] = {"tail": [40, 6, 1, 0], "two": [9, 3], "one_class": [0, 7, 0], "one_row": [0, 0, 1]}
"""Rows of each class at a client: rare, one row, absent; two classes; one class only; a single row."""


def labels_of(counts: list[int], seed: int = 0) -> Tensor:
    """int64 labels, ``counts[c]`` of class c, in random order."""
    labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
