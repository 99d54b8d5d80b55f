"""The contract of a trainable generator: it learns from few rows, follows its conditions, and survives a kill."""

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedimb import registry
from fedimb.errors import DataError
from fedimb.generation.base import Generator
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator
from fedimb.testing.expectations import Contract, build, check_yaml, same

SHORT = Training(steps=4, batch=6, warmup=2, checkpoint_every=2)
"""The shortest useful training, with a checkpoint in the middle."""


def examples(
    shape: tuple[int, ...], counts: tuple[int, ...] = (6, 3, 1), n_domains: int = 2, seed: int = 0
) -> Examples:
    """Rows in 0..1, ``counts[c]`` of class c, with alternating domains."""
    y = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    x = torch.rand(len(y), *shape, generator=torch.Generator().manual_seed(seed))
    return Examples(x, y, torch.arange(len(y)) % n_domains)


def check_generator(name: str, *, shape: tuple[int, ...] = (1, 5, 7), **settings: object) -> None:
    """Check that a trainable generator learns, samples what is requested in the range seen, and is reproducible.

    If it is not trained (files, a pretrained model) only its settings are checked.

    Args:
        name: as registered under kind ``generator``.
        shape: shape of the rows it makes, e.g. ``(5,)`` for tables; best a shape that the network's levels do not
            divide.
        settings: settings of the generator, instead of those in its YAML; use small networks and few steps.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("generator", name)
    check_yaml(contract, "generator", name)
    if not registry.get("generator", name).factory.trainable:  # type: ignore[attr-defined]
        return
    _Generators(contract, name, shape, settings).check()


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _ids(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


class _Stopped(Exception):
    """Stops a training in the middle."""


class _Generators:
    """New and briefly trained generators of one kind, and the rules they must keep."""

    def __init__(self, contract: Contract, name: str, shape: tuple[int, ...], settings: Mapping[str, object]) -> None:
        self.contract, self.name, self.shape, self.settings = contract, name, shape, settings

    def fresh(self, n_classes: int = 3, n_domains: int = 2, seed: int = 0, **changes: Any) -> Generator:
        given = {"n_classes": n_classes, "n_domains": n_domains, "shape": self.shape, "seed": seed}
        made: Generator = build("generator", self.name, {**self.settings, **changes}, **given)
        return made

    def trained(self, data: Examples | None = None, seed: int = 3, **changes: Any) -> Generator:
        generator = self.fresh(**changes)
        train_generator(generator, data or examples(self.shape), SHORT, seed)
        return generator

    def check(self) -> None:
        """Every rule."""
        for rule in (
            self.losses, self.levels, self.samples, self.conditions, self.guidance, self.seeds, self.kills, self.state,
            self.absent_class, self.few_rows, self.equal_rows, self.unseen_domain, self.bad_examples,
        ):  # fmt: skip
            rule()

    def losses(self) -> None:
        with self.contract.rule("losses are one finite number per row and train the network"):
            generator, data = self.fresh(), examples(self.shape)
            generator.fit_scale(data)
            generator.mark_seen(data)
            losses = generator.losses(data.x, data.y, data.d, _rng())
            self.contract.expect(losses.shape == (10,) and losses.dtype == torch.float32, "float32 [10]", losses)
            self.contract.finite(losses, "losses")
            losses.mean().backward()
            for key, parameter in generator.named_parameters():
                if parameter.requires_grad:
                    self.contract.expect(parameter.grad is not None, f"a gradient of {key}", "none")
                    self.contract.finite(parameter.grad, f"a gradient of {key}")  # type: ignore[arg-type]

    def levels(self) -> None:
        with self.contract.rule("a row's loss at a level does not depend on the rows after it"):
            generator, data = self.trained(), examples(self.shape)
            generator.requires_grad_(False)
            for level in (0.0, 0.5, 1.0):
                whole = generator.losses_at(data.x, data.y, data.d, level, _rng())
                each = generator.losses_at(data.x, data.y, data.d, torch.full((10,), level), _rng())
                self.contract.equal(each, whole, "the same losses for a level per row")
                changed = data.x.clone()
                changed[-1] = 0.0
                part = generator.losses_at(changed, data.y, data.d, level, _rng())
                self.contract.expect(torch.allclose(whole[:-1], part[:-1], atol=1e-5), "the others' losses", part)
                if level < 1:
                    other = not torch.allclose(whole[-1], part[-1], atol=1e-5)
                    self.contract.expect(other, "another loss of the changed row", part[-1])

    def samples(self) -> None:
        with self.contract.rule("samples have the requested shape and stay in the range seen"):
            generator, data, counted = self.trained(), examples(self.shape), list[int]()
            made = generator.sample(_ids(2, 0, 0), _ids(1, 0, 1), _rng(), counted.append)
            fits = made.shape == (3, *self.shape) and made.dtype == torch.float32
            self.contract.expect(fits, f"float32 {[3, *self.shape]}", made)
            self.contract.equal(sum(counted), 3, "progress")
            inside = bool(made.min() >= data.x.min()) and bool(made.max() <= data.x.max())
            self.contract.expect(inside, f"{data.x.min():g} to {data.x.max():g}", made)
            self.contract.equal(len(torch.unique(made, dim=0)), 3, "different samples")
            none = generator.sample(_ids(), _ids(), _rng())
            self.contract.equal(tuple(none.shape), (0, *self.shape), "of no samples, shape")

    def conditions(self) -> None:
        with self.contract.rule("class and domain have an effect"):
            generator = self.trained()
            asked = generator.sample(_ids(0), _ids(0), _rng())
            other = generator.sample(_ids(1), _ids(0), _rng())
            self.contract.expect(not torch.equal(asked, other), "another sample of another class", other)
            other = generator.sample(_ids(0), _ids(1), _rng())
            self.contract.expect(not torch.equal(asked, other), "another sample of another domain", other)

    def guidance(self) -> None:
        if "guidance" not in registry.parameters("generator", self.name):
            return
        with self.contract.rule("guidance 0 is the conditional model alone, and above 0 it differs"):
            plain, guided = self.trained(guidance=0.0), self.trained(guidance=2.0)
            self.contract.equal(dict(guided.state_dict()), dict(plain.state_dict()), "the same network")
            one, two = (g.sample(_ids(1), _ids(0), _rng()) for g in (plain, guided))
            self.contract.expect(not torch.equal(one, two), "other samples", two)

    def seeds(self) -> None:
        with (
            self.contract.rule("the same seed gives the same bits, another seed others"),
            self.contract.own_randomness(),
        ):
            first, second = self.trained(), self.trained()
            self.contract.equal(dict(second.state_dict()), dict(first.state_dict()), "the same network")
            draws = [g.sample(_ids(0, 1), _ids(0, 1), _rng(5)) for g in (first, second)]
            self.contract.equal(draws[1], draws[0], "the same samples")
            other = first.sample(_ids(0, 1), _ids(0, 1), _rng(6))
            self.contract.expect(not torch.equal(draws[0], other), "other samples for another seed", other)
            trained = dict(self.trained(seed=4).state_dict())
            unlike = not same(dict(first.state_dict()), trained)
            self.contract.expect(unlike, "another network for another seed of the training", "the same")
            fresh, drawn = self.fresh().state_dict(), self.fresh(seed=1).state_dict()
            unlike = any(not torch.equal(fresh[key], drawn[key]) for key in fresh if key.startswith("net"))
            self.contract.expect(unlike, "another fresh network for another seed", "the same")

    def kills(self) -> None:
        for stop in (1, 2, 3):
            rule = self.contract.rule(f"a training killed after step {stop} continues to the same bits")
            with rule, tempfile.TemporaryDirectory(prefix="fedimb-check-") as folder:
                self._killed(stop, Path(folder) / "generator.safetensors")

    def _killed(self, stop: int, file: Path) -> None:
        data, whole = examples(self.shape), self.fresh()
        mean = train_generator(whole, data, SHORT, 3)
        left = stop

        def kill(n: int) -> None:
            nonlocal left
            left -= n
            if left == 0:
                raise _Stopped

        with self.contract.refuses(_Stopped, ""):
            train_generator(self.fresh(), data, SHORT, 3, checkpoint=file, progress=kill)
        self.contract.equal(file.exists(), stop >= SHORT.checkpoint_every, "a checkpoint")
        resumed, steps = self.fresh(), list[int]()
        again = train_generator(resumed, data, SHORT, 3, checkpoint=file, progress=steps.append)
        self.contract.equal(again, mean, "the mean loss")
        self.contract.equal(sum(steps), SHORT.steps, "steps")
        self.contract.expect(not file.exists(), "no checkpoint left", file)
        self.contract.equal(dict(resumed.state_dict()), dict(whole.state_dict()), "the same network")

    def state(self) -> None:
        with self.contract.rule("its state is all that another process needs"):
            generator, other = self.trained(), self.fresh(seed=9)
            other.load_state_dict(generator.state_dict())
            asked = _ids(0, 1, 2), _ids(0, 1, 0)
            self.contract.equal(other.sample(*asked, _rng()), generator.sample(*asked, _rng()), "the same samples")
            for key, value in other.state_dict().items():
                self.contract.expect(value.numpy().dtype == np.float32, f"float32 '{key}'", value.dtype)
        with self.contract.rule("rows of classes and domains are named in the state"):
            state, generator = self.fresh().state_dict(), self.fresh()
            for rows, n in ((generator.class_rows(), 3), (generator.domain_rows(), 2)):
                self.contract.expect(len(rows) >= 2, "at least two entries", rows)
                for key, count in rows.items():
                    self.contract.equal(count, n, f"rows of {key}")
                    self.contract.equal(len(state[key]), n + 1, f"length of {key}, with 'not said'")

    def absent_class(self) -> None:
        with self.contract.rule("an absent class is allowed in training and refused in sampling"):
            generator = self.trained(examples(self.shape, (4, 0, 3)))
            self.contract.equal(generator.sample(_ids(0, 2), _ids(0, 0), _rng()).shape[0], 2, "samples")
            with self.contract.refuses(DataError, r"class \[1\]: the generator was trained on none"):
                generator.sample(_ids(0, 1), _ids(0, 0), _rng())
            fresh = self.fresh().state_dict()
            for key in generator.class_rows():
                if not key.endswith("_seen"):
                    moved = (generator.state_dict()[key] != fresh[key]).any(dim=1)
                    self.contract.equal(moved.tolist(), [True, False, True, True], f"rows of {key} that moved")

    def few_rows(self) -> None:
        for counts in ((4,), (1,), (0, 0, 1)):
            with self.contract.rule(f"it learns from {list(counts)} rows of each class"):
                generator = self.fresh(n_classes=len(counts), n_domains=1)
                loss = train_generator(generator, examples(self.shape, counts, n_domains=1), SHORT, 0)
                self.contract.expect(math.isfinite(loss), "a finite loss", loss)
                self.contract.finite(generator.sample(_ids(len(counts) - 1), _ids(0), _rng()), "a sample")

    def equal_rows(self) -> None:
        with self.contract.rule("rows that are all equal are reproduced"):
            rows = torch.full((6, *self.shape), 0.3)
            data = Examples(rows, _ids(0, 0, 0, 1, 1, 2), _ids(0, 0, 0, 0, 0, 0))
            made = self.trained(data).sample(_ids(0, 1, 2), _ids(0, 0, 0), _rng())
            self.contract.equal(made, torch.full((3, *self.shape), 0.3))

    def unseen_domain(self) -> None:
        with self.contract.rule("a domain not trained on is sampled as if none were given"):
            generator = self.trained(examples(self.shape, n_domains=1))  # only domain 0 of two
            unseen, beyond, null = (generator.sample(_ids(0), _ids(d), _rng()) for d in (1, 7, 2))
            self.contract.equal([beyond, null], [unseen, unseen], "the same sample for any such domain")
            seen = generator.sample(_ids(0), _ids(0), _rng())
            self.contract.expect(not torch.equal(unseen, seen), "another sample than of a domain seen", seen)

    def bad_examples(self) -> None:
        for change, says in BAD_EXAMPLES:
            with self.contract.rule("bad examples are refused with place and remedy, and change nothing"):
                generator = self.fresh()
                before = {key: value.clone() for key, value in generator.state_dict().items()}
                with self.contract.refuses(DataError, says):
                    train_generator(generator, change(examples(self.shape)), SHORT, 0)
                after = generator.state_dict()
                for key in before:
                    if "seen" in key or key.startswith("net"):
                        self.contract.equal(after[key], before[key], key)


def _with_nan(e: Examples) -> Examples:
    rare = e.y.view(-1, *[1] * (e.x.ndim - 1)) == 2
    return Examples(torch.where(rare, torch.nan, e.x), e.y, e.d)


BAD_EXAMPLES: tuple[tuple[Callable[[Examples], Examples], str], ...] = (
    (lambda e: Examples(e.x[:0], e.y[:0], e.d[:0]), "no examples"),
    (lambda e: Examples(e.x.double(), e.y, e.d), "float64: give float32"),
    (lambda e: Examples(torch.cat([e.x, e.x], -1), e.y, e.d), "the same size and number of channels"),
    (lambda e: Examples(e.x[:, None], e.y, e.d), "the same size and number of channels"),
    (_with_nan, "example 9"),
    (lambda e: Examples(e.x, e.y[1:], e.d), "one class id and one domain id"),
    (lambda e: Examples(e.x, e.y + 1, e.d), r"class ids 1..3: expected 0..2"),
    (lambda e: Examples(e.x, e.y - 1, e.d), r"class ids -1..1: expected 0..2"),
    (lambda e: Examples(e.x, e.y.int(), e.d), "int64"),
)
"""Examples that must be refused, and a pattern of the error message."""
