"""The contract of paces."""

import itertools

import numpy as np

from fedimb import registry
from fedimb.paces.asynchronous import AsynchronousPace
from fedimb.paces.base import Pace, RoundPace
from fedimb.testing.expectations import Contract, build, check_yaml

_CLIENTS = np.arange(3, 43, 2)
_EXPECTED = np.random.default_rng(4).integers(10**6, 10**9, len(_CLIENTS))


def check_pace(name: str, **settings: object) -> None:
    """Check that a pace takes replies in the order in which they come, ends when the last of them is there, or later,
    and that its discounts are between 0 and 1.

    Args:
        name: as registered under kind ``pace``.
        settings: settings of the pace, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("pace", name)
    check_yaml(contract, "pace", name)
    with contract.rule("it is a Pace, with or without rounds, and says so when it is registered"):
        pace: Pace = build("pace", name, settings)
        contract.expect(
            isinstance(pace, RoundPace | AsynchronousPace),
            "a subclass of RoundPace or AsynchronousPace",
            type(pace).__name__,
        )
        declared = bool(registry.flags("pace", name).get("asynchronous"))
        contract.expect(declared == pace.asynchronous, f"flag asynchronous={pace.asynchronous}", declared)
        contract.expect(pace.timed in (True, False), "timed is True or False", pace.timed)
    if isinstance(pace, AsynchronousPace):
        _check_without_rounds(contract, pace)
    elif isinstance(pace, RoundPace):
        _check_rounds(contract, pace)


def _check_rounds(contract: Contract, pace: RoundPace) -> None:
    with contract.rule("clients of the run, by the round's generator, with a step above 0"):
        pace.prepare(_CLIENTS, _EXPECTED)
        for seed in range(5):
            pools = [pace.pool(np.random.default_rng(seed)) for _ in range(2)]
            if pools[0] is None or pools[1] is None:
                contract.expect(pools == [None, None], "the same pool for the same seed", pools)
                continue
            contract.equal(pools[1].clients, pools[0].clients, "the same pool for the same seed")
            own = pools[0].clients
            contract.expect(len(own) and set(own) <= set(_CLIENTS), "some of the clients", own)
            contract.expect(np.array_equal(own, np.sort(own)), "sorted ids", own)
            contract.expect(pools[0].step > 0, "a step above 0", pools[0].step)
    with contract.rule("it asks for at least the cohort, and takes the first replies, until the last of them is there"):
        for size in (1, 2, 10):
            asked = pace.asks(size)
            contract.expect(isinstance(asked, int) and asked >= size, f"a whole number of at least {size}", asked)
            for count in {0, 1, asked // 2, asked}:
                arrivals = sorted(_EXPECTED[:count].tolist())
                taken, end = pace.closes(arrivals, size)
                contract.expect(0 <= taken <= count, f"0 to {count} replies", taken)
                contract.expect(isinstance(end, int) and end >= 0, "an end in whole nanoseconds", end)
                contract.expect(not taken or end >= arrivals[taken - 1], "an end when all taken are there", end)
                lost = sorted(_EXPECTED[count:asked].tolist())  # nobody knows that they are, before their time
                _, later = pace.closes(arrivals, size, lost)
                contract.expect(later >= end, f"with lost clients no end before {end}", later)
                late = arrivals[taken:]
                contract.expect(not late or late[0] >= end or taken >= size, "late replies come after the end", late)


def _check_without_rounds(contract: Contract, pace: AsynchronousPace) -> None:
    with contract.rule("as many clients at a time as there are, and versions made of at least one arrival"):
        for clients in (1, 2, 20):
            concurrency, buffer = pace.sizes(clients, clients)
            contract.expect(1 <= buffer <= concurrency <= clients, "1 <= buffer <= concurrency <= clients", buffer)
    with contract.rule("a discount of 1 for an update that is not late, falling and above 0"):
        found = [pace.discount(late) for late in range(200)]
        contract.expect(found[0] == 1, "1 for staleness 0", found[0])
        falling = all(0 < after <= before for before, after in itertools.pairwise(found))
        contract.expect(falling, "discounts that do not rise, above 0", found[:5])
    with contract.rule("a rate above 0"):
        contract.expect(pace.rate > 0, "a rate above 0", pace.rate)
