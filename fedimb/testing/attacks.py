"""The contract of attacks."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from fedimb import registry
from fedimb.attacks.base import Attack, Known
from fedimb.records import Arrays
from fedimb.testing.expectations import COUNTS, Contract, build, check_yaml, labels_of, normal, same

_SHAPE = (1, 8, 8)
_HEAD = ("head.weight", "head.bias")


def check_attack(name: str, **settings: object) -> None:
    """Check that an attack's replies look like those of the others, that it repeats, and changes nothing in place.

    Args:
        name: as registered under kind ``attack``.
        settings: settings of the attack, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("attack", name)
    check_yaml(contract, "attack", name)
    with contract.rule("it is an Attack with settings for who attacks and since when"):
        attack = _attack(name, settings)
        contract.expect(isinstance(attack, Attack), "a subclass of fedimb.attacks.base.Attack", type(attack).__name__)
        contract.expect(0 < attack.settings.fraction < 1, "0 < fraction < 1", attack.settings.fraction)
        contract.expect(attack.settings.start >= 1, "start >= 1", attack.settings.start)
    for case, counts in COUNTS.items():
        _check_rows(Contract("attack", name, case), name, settings, counts)
    _check_claims(contract, name, settings)
    for clients in (1, 2, 5):
        _check_updates(Contract("attack", name, f"{clients} attackers"), name, settings, clients)


def _attack(name: str, settings: Mapping[str, object], n_classes: int = 4) -> Attack:
    known = Known(n_classes, (n_classes - 1, n_classes - 2)[: n_classes - 1], 0, _SHAPE, _HEAD)
    found: Attack = build("attack", name, settings, known=known)
    return found


def _check_rows(contract: Contract, name: str, settings: Mapping[str, object], counts: list[int]) -> None:
    if "multiclass" not in registry.flags("attack", name).get("tasks", ("multiclass",)):
        return
    y = labels_of(counts)
    x = normal(len(y), *_SHAPE)
    with contract.rule("rows of the same shape, the same for the same seed"), contract.own_randomness():
        before = x.clone(), y.clone()
        made = [_attack(name, settings, len(counts)).poison(x, y, torch.Generator().manual_seed(5)) for _ in range(2)]
        contract.equal((x, y), before, "its rows as they were")
        contract.equal(made[1], made[0], "the same rows for the same seed")
        (shown, labels), n = made[0], len(counts)
        contract.expect(shown.shape == x.shape and shown.dtype == x.dtype, f"float32 {list(x.shape)}", shown)
        contract.expect(labels.shape == y.shape and labels.dtype == y.dtype, f"int64 {list(y.shape)}", labels)
        contract.expect(bool(((labels >= 0) & (labels < n)).all()), f"class ids from 0 to {n - 1}", labels)
        contract.finite(shown, "rows")


def _check_claims(contract: Contract, name: str, settings: Mapping[str, object]) -> None:
    with contract.rule("what it claims can be sent"):
        attack = _attack(name, settings)
        counts = np.array([40, 6, 1, 0])
        claimed = attack.counts(counts.copy())
        contract.expect(claimed.dtype == np.int64 and claimed.shape == (4,), "class counts int64 [4]", claimed)
        contract.expect((claimed >= 0).all(), "counts of at least 0", claimed)
        weight = attack.weight(47.0)
        contract.expect(np.isfinite(weight) and weight >= 0, "a finite weight of at least 0", weight)
        contract.expect(attack.rows(47) >= 47, "approved rows of at least the true 47", attack.rows(47))


def _check_updates(contract: Contract, name: str, settings: Mapping[str, object], clients: int) -> None:
    received = {"head.weight": _arrays(0, 4, 3), "head.bias": _arrays(1, 4), "body": _arrays(2, 5, 2)}
    trained = {c: {k: v + 0.1 * _arrays(10 + c, *v.shape) for k, v in received.items()} for c in range(clients)}

    def sent(client: int) -> Arrays:
        return _attack(name, settings).update(received, trained[client], np.random.default_rng(client))

    def pooled() -> Mapping[int, Arrays]:
        return _attack(name, settings).collude(received, trained, 3 * clients, np.random.default_rng(1))

    _check_weights(contract, received, trained, lambda: {c: sent(c) for c in trained}, "what it sends")
    if _attack(name, settings).colludes:
        _check_weights(contract, received, trained, pooled, "what the group sends")


def _check_weights(
    contract: Contract,
    received: Arrays,
    trained: Mapping[int, Arrays],
    make: Callable[[], Mapping[int, Arrays]],
    what: str,
) -> None:
    """Finite weights of the model's names, shapes and dtypes for each client, twice the same, nothing changed."""
    with contract.rule(f"{what} fits the model"), contract.own_randomness():
        before = [{k: v.copy() for k, v in one.items()} for one in (received, *trained.values())]
        made, again = make(), make()
        contract.expect(same([received, *trained.values()], before), "what it was given as it was", "changed in place")
        contract.equal(sorted(made), sorted(trained), "weights of each attacker")
        for client, own in made.items():
            contract.equal(sorted(own), sorted(received), "the model's names")
            for key, value in own.items():
                wanted = f"{received[key].dtype} {list(received[key].shape)} for {key}"
                fits = value.shape == received[key].shape and value.dtype == received[key].dtype
                contract.expect(fits, wanted, value)
                contract.finite(value, f"{key} of client {client}")
                contract.equal(again[client][key], value, "the same for the same seed")


def _arrays(seed: int, *shape: int) -> np.ndarray:
    return normal(*shape, seed=seed).numpy()


__all__ = ["check_attack"]
