"""Paces without rounds: sizes and discounts; and every pace keeps its contract."""

import numpy as np
import pytest

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.paces.asynchronous import Buffered, BufferedSettings, FedAsync, FedAsyncSettings
from fedimb.paces.base import PaceSettings, Pool, RoundPace
from fedimb.testing import ContractError, check_pace, paces


def test_sizes():
    assert Buffered(BufferedSettings()).sizes(20, 100) == (20, 10)
    assert Buffered(BufferedSettings()).sizes(1, 1) == (1, 1)
    assert Buffered(BufferedSettings(concurrency=30, buffer=4)).sizes(20, 100) == (30, 4)
    assert FedAsync(FedAsyncSettings()).sizes(20, 100) == (20, 1)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="101, and 100 clients have rows"):
        Buffered(BufferedSettings(concurrency=101)).sizes(20, 100)
    with pytest.raises(ConfigError, match="buffer=21: only 20 clients train at a time"):
        Buffered(BufferedSettings(buffer=21)).sizes(20, 100)


@pytest.mark.parametrize(
    "pace",
    [
        FedAsync(FedAsyncSettings(correction="exposure")),
        Buffered(BufferedSettings(correction="exposure", concurrency=3)),
        Buffered(BufferedSettings(correction="exposure", buffer=1)),
    ],
)
def test_a_correction_that_would_cancel_is_refused(pace):
    with pytest.raises(
        ConfigError, match=r"use pace=buffered with pace\.buffer of at least 2, or pace\.correction=unif"
    ):
        pace.sizes(20, 100)


def test_a_correction_in_a_buffer_of_two_is_taken():
    assert Buffered(BufferedSettings(correction="exposure", buffer=2)).sizes(2, 100) == (2, 2)


def test_discounts_are_those_of_the_papers():
    assert Buffered(BufferedSettings()).discount(3) == 0.5
    assert Buffered(BufferedSettings(exponent=0.0)).discount(50) == 1.0
    assert FedAsync(FedAsyncSettings(exponent=1.0, alpha=0.4)).discount(3) == 0.25


@pytest.mark.parametrize("name", registry.names("pace"))
def test_every_pace_keeps_its_contract(name):
    check_pace(name)


class LastFirst(RoundPace):
    def __init__(self, settings: PaceSettings):
        super().__init__(settings)

    def closes(self, arrivals, size, lost=()):
        return len(arrivals), min(arrivals, default=0)


class Hasty(RoundPace):
    def __init__(self, settings: PaceSettings):
        super().__init__(settings)

    def closes(self, arrivals, size, lost=()):
        return len(arrivals), max(arrivals, default=0) if not lost else (arrivals[-1] // 2 if arrivals else 0)


class Forgetful(RoundPace):
    def __init__(self, settings: PaceSettings):
        super().__init__(settings)

    def pool(self, rng):
        return Pool(np.arange(4), 1.0)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (LastFirst, "an end when all taken are there"),
        (Hasty, "with lost clients no end before"),
        (Forgetful, "some of the clients"),
    ],
)
def test_the_contract_sees_what_is_wrong(broken, says, monkeypatch):
    monkeypatch.setattr(paces, "check_yaml", lambda *args: None)
    with registry.isolated():
        registry.register("pace", "broken")(broken)
        with pytest.raises(ContractError, match=says):
            check_pace("broken")
