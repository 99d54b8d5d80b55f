"""The contracts of losses, samplers, calibrations and models."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedimb import registry
from fedimb.config.combinations import Combination, refusal
from fedimb.errors import FedimbError
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.models.probe import probe_model
from fedimb.testing.expectations import COUNTS, Contract, build, check_yaml, labels_of, normal
from fedimb.training.calibrations.base import Outputs
from fedimb.training.local import train_locally
from fedimb.training.losses.base import RowLoss
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

WIDTH = 5
INPUT_SHAPES = ((12,), (8, 8), (1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32))


def check_loss(name: str, **settings: object) -> None:
    """Check that a loss and its gradients are finite for any counts, that it is deterministic, and that its flags are
    true.

    Args:
        name: as registered under kind ``loss``.
        settings: settings of the loss, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("loss", name)
    check_yaml(contract, "loss", name)
    _check_loss_flags(contract, name)
    for case, counts in COUNTS.items():
        for scale in (0.0, 1.0, 60.0):
            _check_gradients(Contract("loss", name, f"{case}, logits x {scale:g}"), name, settings, counts, scale)
    for counts in ([40, 1, 0], [0, 0, 3], [1, 1, 1]):
        _check_extreme_rows(Contract("loss", name, f"counts {counts}"), name, settings, counts)
    _check_repeats(contract, name, settings)
    _check_unknown_labels(contract, name, settings)
    with contract.rule("it is lower where the label's logit is higher"):
        labels, logits, features = labels_of([40, 6, 3]), normal(49, 3).requires_grad_(), normal(49, WIDTH)
        value = _value(_loss(name, settings, [40, 6, 3]), logits, labels, features)
        gradient = torch.autograd.grad(value, logits)[0][torch.arange(49), labels].sum()
        contract.expect(gradient < 0, "a negative gradient at the labels' logits", gradient)
    if isinstance(row_loss := _loss(name, settings, [40, 6, 3]), RowLoss):
        with contract.rule("its value is the mean of the rows' losses"):
            labels, logits = labels_of([40, 6, 3]), normal(49, 3)
            rows, value = row_loss.rows(logits, labels), row_loss(logits, labels)
            contract.expect(rows.shape == (49,), "rows [49]", rows)
            contract.expect(torch.allclose(rows.mean(), value, rtol=1e-5, atol=1e-6), f"{rows.mean():g}", value)
        for shape in ((7, 3), (4, 7, 3)):
            _check_analytic_gradient(Contract("loss", name, f"logits {list(shape)}"), name, settings, shape)


def _loss(name: str, settings: Mapping[str, object], counts: list[int]) -> Any:
    return build("loss", name, settings, n_classes=len(counts), prior=np.array(counts))


def _late(name: str, settings: Mapping[str, object], counts: list[int], local: list[int]) -> Any:
    """The loss in the last of nine rounds, at a client with its own counts."""
    given = {"prior": np.array(counts), "local_counts": np.array(local), "round": 9, "rounds": 9}
    return build("loss", name, settings, n_classes=len(counts), **given)


def _value(loss: Any, logits: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    value: Tensor = (
        loss(logits, labels, features=features) if getattr(loss, "needs_features", False) else loss(logits, labels)
    )
    return value


def _check_loss_flags(contract: Contract, name: str) -> None:
    with contract.rule("its flags match what it reads and does"):
        flags, wanted = registry.flags("loss", name), registry.parameters("loss", name)
        for flag in ("adjusts_logits", "needs_prior"):
            contract.expect(isinstance(flags.get(flag), bool), f"flag {flag}=True or False at register", flags)
        contract.equal(flags["needs_prior"], "prior" in wanted, "needs_prior if and only if it takes 'prior'")
        uses = bool(flags.get("uses_local_counts", False))
        contract.equal(uses, "local_counts" in wanted, "uses_local_counts if and only if it takes 'local_counts'")
        parts = (registry.get("loss", name), registry.get("calibration", "la_post"))
        twice = "double correction" in (refusal(Combination(parts, "clear_sum")) or "")
        contract.equal(twice, flags["adjusts_logits"], "refused with la_post if and only if adjusts_logits")


def _check_gradients(
    contract: Contract, name: str, settings: Mapping[str, object], counts: list[int], scale: float
) -> None:
    with contract.rule("a finite float32 scalar with finite gradients"):
        labels, loss = labels_of(counts), _loss(name, settings, counts)
        loss.train()
        logits = normal(len(labels), len(counts), scale=scale).requires_grad_()
        features = normal(len(labels), WIDTH, seed=1).requires_grad_()
        value = _value(loss, logits, labels, features)
        contract.expect(value.shape == () and value.dtype == torch.float32, "a float32 scalar", value)
        contract.finite(value, "a loss")
        wanted = [logits, features, *loss.parameters()]
        for gradient in torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True):
            contract.finite(gradient, "gradients")


def _check_extreme_rows(contract: Contract, name: str, settings: Mapping[str, object], counts: list[int]) -> None:
    loss = _late(name, settings, counts, counts[::-1])
    if getattr(loss, "needs_features", False):
        return  # reads features, not only logits
    with contract.rule("one row with extreme logits and any label has a finite loss and gradient"):
        for z in ([1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4], [0.0, 0.0, 0.0]):
            for label in range(3):
                logits = torch.tensor([z], requires_grad=True)
                value = loss(logits, torch.tensor([label]))
                contract.finite(value, f"a loss of logits {z} and label {label}")
                contract.finite(torch.autograd.grad(value, logits)[0], f"a gradient at logits {z} and label {label}")


def _check_unknown_labels(contract: Contract, name: str, settings: Mapping[str, object]) -> None:
    """What a loss declares that it can tell from classes: unknown cells of targets, labels that are sets of classes."""
    known = registry.flags("loss", name).get("unknown_labels", ())
    logits = normal(6, 4).requires_grad_()
    if "cells" in known:
        targets = (normal(6, 4, seed=1) > 0).float()
        loss, partial = _late(name, settings, [9, 6, 3, 1], [9, 6, 3, 1]), targets.clone()
        partial[0, 1] = partial[2] = torch.nan
        with contract.rule("unknown cells (NaN) give a finite loss and gradient, and change no other row's loss"):
            rows = loss.rows(logits, partial)
            contract.finite(rows, "losses of rows with unknown cells")
            contract.finite(torch.autograd.grad(rows.sum(), logits)[0], "gradients of rows with unknown cells")
            kept = [1, 3, 4, 5]
            contract.equal(loss.rows(logits, targets)[kept], loss.rows(logits, partial)[kept], "rows that are known")
    if "coarse" in known:
        sets = np.array([[False, True, True, False], [True, True, True, True]])
        loss = build("loss", name, settings, n_classes=4, prior=np.array([9, 6, 3, 1]), label_sets=sets)
        labels = torch.tensor([0, 4, 5, 3, 4, 1])
        with contract.rule("a label C + j has a finite loss that treats the classes of set j alike"):
            rows = loss.rows(logits, labels)
            (gradient,) = torch.autograd.grad(rows.sum(), logits)
            contract.finite(rows, "losses of rows with coarse labels")
            contract.finite(gradient, "gradients of rows with coarse labels")
            swapped = loss.rows(logits[:, [0, 2, 1, 3]], labels)[[1, 4]]
            contract.expect(torch.allclose(swapped, rows[[1, 4]], atol=1e-5), "the same loss", swapped)
        with contract.rule("a label that may be any class has no gradient"):
            contract.expect(gradient[2].abs().max() < 1e-5, "a gradient of 0", gradient[2])


def _check_repeats(contract: Contract, name: str, settings: Mapping[str, object]) -> None:
    counts = COUNTS["tail"]
    labels, logits, features = labels_of(counts), normal(47, 4), normal(47, WIDTH)
    with (
        contract.rule("it is deterministic, does not change its inputs and loads its state"),
        contract.own_randomness(),
    ):
        before = [t.clone() for t in (labels, logits, features)]
        one, two = _loss(name, settings, counts), _loss(name, settings, counts)
        two.load_state_dict(one.state_dict())
        contract.equal(_value(two, logits, labels, features), _value(one, logits, labels, features), "the same loss")
        contract.equal([labels, logits, features], before, "inputs as they were")
    if registry.flags("loss", name).get("stackable"):
        with contract.rule("a stackable loss has no parameters and no state"):
            contract.equal(list(one.parameters()), [], "no parameters")
            contract.equal(dict(one.state_dict()), {}, "no state")


def _check_analytic_gradient(
    contract: Contract, name: str, settings: Mapping[str, object], shape: tuple[int, ...]
) -> None:
    with contract.rule("loss_and_grad, the analytic gradient, equals autograd's"):
        loss = _late(name, settings, [40, 6, 1], [9, 0, 2])
        draw = torch.Generator().manual_seed(0)
        logits = 3 * torch.randn(shape, generator=draw)
        labels = torch.randint(0, 3, shape[:-1], generator=draw)
        weights = torch.rand(shape[:-1], generator=draw)
        leaf = logits.clone().requires_grad_()
        expected = loss.rows(leaf, labels) * weights
        expected.sum().backward()
        losses, gradient = loss.loss_and_grad(logits.clone(), labels, weights)
        torch.testing.assert_close(losses, expected.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-5, atol=1e-6)
        contract.equal([losses.requires_grad, gradient.requires_grad], [False, False], "results without a graph")


def check_sampler(name: str, **settings: object) -> None:
    """Check that a sampler gives valid positions, reproducibly, and reaches every class within some epochs.

    Args:
        name: as registered under kind ``sampler``.
        settings: settings of the sampler, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("sampler", name)
    check_yaml(contract, "sampler", name)
    for case, counts in COUNTS.items():
        contract = Contract("sampler", name, case)
        labels = labels_of(counts)
        with contract.rule("positions of the rows, the same for the same seed"), contract.own_randomness():
            before, orders = labels.clone(), []
            for _ in range(2):
                sampler, generator = build("sampler", name, settings), torch.Generator().manual_seed(3)
                orders.append([sampler.epoch(labels, generator) for _ in range(3)])
            for one, two in zip(*orders, strict=True):
                contract.expect(one.dtype == torch.int64 and one.ndim == 1 and len(one) >= 1, "int64 [m], m >= 1", one)
                inside = 0 <= int(one.min()) <= int(one.max()) < len(labels)
                contract.expect(inside, f"positions from 0 to {len(labels) - 1}", one)
                contract.equal(two, one, "the same positions for the same seed")
            contract.equal(labels, before, "labels as they were")
    contract = Contract("sampler", name)
    with contract.rule("every class of the client appears within 30 epochs"):
        labels, generator = labels_of(COUNTS["tail"]), torch.Generator().manual_seed(0)
        sampler = build("sampler", name, settings)
        seen = torch.cat([sampler.epoch(labels, generator) for _ in range(30)])
        contract.equal(set(labels[seen].tolist()), {0, 1, 2})


TABLE: tuple[tuple[int, int], ...] = ((3, 6), (6, 7))
"""One-hot columns of the rows of `check_resampler`: three numbers, a column of three categories, a missing mark."""


def check_resampler(name: str, **settings: object) -> None:
    """Check that a resampler gives finite rows of the client's own classes, reproducibly, and leaves its inputs alone.

    Args:
        name: as registered under kind ``resampler``.
        settings: settings of the resampler, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("resampler", name)
    check_yaml(contract, "resampler", name)
    with contract.rule("its flags match what it does"):
        changes = bool(registry.flags("resampler", name).get("resamples"))
        contract.equal(changes, name != "none", "resamples=True unless it changes nothing")
    for case, counts in COUNTS.items():
        labels = labels_of(counts).numpy()
        numbers = normal(len(labels), 3).numpy()
        coded = np.eye(4, dtype=np.float32)[np.arange(len(labels)) % 4][:, :3]
        mark = (np.arange(len(labels)) % 2 == 0).astype(np.float32)
        for categories in ((), TABLE):
            kind = "a table with categories" if categories else "numbers only"
            contract = Contract("resampler", name, f"{case}, {kind}")
            x = np.column_stack([numbers, coded, mark]) if categories else numbers
            with contract.rule("it takes the rows, or refuses them with a FedimbError before work"):
                try:
                    for rule in (made := [build("resampler", name, settings, categories=categories) for _ in "ab"]):
                        rule.check((x.shape[1],))
                except FedimbError:
                    continue
            _check_resampled(contract, made, x, labels)


def _check_resampled(contract: Contract, rules: list[Any], x: np.ndarray, labels: np.ndarray) -> None:
    with contract.rule("finite rows of the client's classes, the same for the same seed"), contract.own_randomness():
        before = x.copy(), labels.copy()
        (found, classes), again = (rule.resample(x, labels, 3) for rule in rules)
        contract.equal(again, (found, classes), "the same rows for the same seed")
        contract.equal((x, labels), before, "its rows as they were")
        right = found.dtype == np.float32 and found.shape == (len(classes), x.shape[1]) and len(found) >= 1
        contract.expect(right, f"float32 [m, {x.shape[1]}], m >= 1", found)
        contract.expect(classes.dtype == np.int64, "int64 classes", classes)
        contract.finite(found, "rows")
        contract.expect(
            set(classes.tolist()) <= set(labels.tolist()), "classes the client holds", set(classes.tolist())
        )
        most = np.bincount(labels).max()
        contract.expect(np.bincount(classes).max() <= most, f"at most {most} rows of a class", np.bincount(classes))
    with contract.rule("a client with one class keeps its rows"):
        if len(set(labels.tolist())) == 1:
            contract.equal((found, classes), (x, labels))


def check_calibration(name: str, **settings: object) -> None:
    """Check that a calibration returns finite logits, does not change its inputs, and declares if it needs class
    counts.

    Args:
        name: as registered under kind ``calibration``.
        settings: settings of the calibration, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("calibration", name)
    check_yaml(contract, "calibration", name)
    flags = registry.flags("calibration", name)
    with contract.rule("its flags match what it reads and does"):
        for flag in ("adjusts_logits", "needs_prior"):
            contract.expect(isinstance(flags.get(flag), bool), f"flag {flag}=True or False at register", flags)
    for case, counts in COUNTS.items():
        for rows in (0, 1, 30):
            for with_bias in (True, False):
                words = f"{case}, {rows} rows, {'with' if with_bias else 'no'} bias"
                _check_adjusted(Contract("calibration", name, words), name, settings, np.array(counts), rows, with_bias)
    bare = Outputs(normal(3, WIDTH), normal(3, 2), normal(2, WIDTH), None, None)
    with contract.rule("without class counts it works or refuses, as its flag says"):
        if flags["needs_prior"]:
            with contract.refuses((ValueError, FedimbError), "count"):
                build("calibration", name, settings).adjust(bare)
        else:
            contract.equal(tuple(build("calibration", name, settings).adjust(bare).shape), (3, 2), "logits of shape")


def _check_adjusted(
    contract: Contract, name: str, settings: Mapping[str, object], counts: np.ndarray, rows: int, with_bias: bool
) -> None:
    with contract.rule("finite, reproducible float32 logits, inputs unchanged"), contract.own_randomness():
        classes = len(counts)
        weight, bias = normal(classes, WIDTH, seed=1), normal(classes, seed=2) if with_bias else None
        features = normal(rows, WIDTH, seed=3)
        logits = features @ weight.T + (bias if bias is not None else 0)
        before = [t.clone() for t in (features, logits, weight)]
        outputs = Outputs(features, logits, weight, bias, counts)
        one, two = (build("calibration", name, settings).adjust(outputs) for _ in range(2))
        contract.expect(one.shape == (rows, classes) and one.dtype == torch.float32, f"float32 {[rows, classes]}", one)
        contract.finite(one, "logits")
        contract.equal(two, one, "the same logits")
        contract.equal([features, logits, weight], before, "inputs as they were")


def check_model(name: str, **settings: object) -> None:
    """Check that a model has features and a linear head, is drawn from the seed, loads its weights, and trains.

    Args:
        name: as registered under kind ``model``, or the dotted path of a class.
        settings: settings of the model, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("model", name)
    if inspect.isclass(registry.get("model", name).factory) and "." not in name:
        check_yaml(contract, "model", name)
    for n_classes in (2, 3, 10):
        _check_head(Contract("model", name, f"{n_classes} classes"), name, settings, n_classes)
    model, shape = _model(contract, name, settings)
    with contract.rule("a row's logits do not depend on the other rows"):
        x = normal(4, *shape)
        model.eval()
        contract.expect(torch.allclose(model(x)[2:3], model(x[2:3]), atol=1e-5), "the same logits", model(x[2:3]))
    with contract.rule("what a run looks for before its first round is not there"):
        probe_model(name, model, shape)
    _check_weights(contract, name, settings)
    _check_trains(contract, name, settings)


def _model(
    contract: Contract, name: str, settings: Mapping[str, object], n_classes: int = 3, seed: int = 0
) -> tuple[Any, tuple[int, ...]]:
    """The model for the first input shape it takes; it must refuse other shapes with a FedimbError."""
    with contract.rule("it takes one of the usual input shapes, and refuses others with a FedimbError"):
        for shape in INPUT_SHAPES:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                try:
                    return build("model", name, settings, n_classes=n_classes, input_shape=shape), shape
                except FedimbError:
                    continue
        contract.expect(False, f"an input shape it takes, of {[list(s) for s in INPUT_SHAPES]}", "none")
    raise AssertionError  # never reached: the rule above raises


def _check_head(contract: Contract, name: str, settings: Mapping[str, object], n_classes: int) -> None:
    with contract.rule("features and a linear head that reads them"):
        model, shape = _model(contract, name, settings, n_classes)
        contract.expect(isinstance(model, Classifier), "a fedimb.models.base.Classifier", type(model))
        contract.expect(isinstance(model.head, torch.nn.Linear), "head: a torch.nn.Linear", type(model.head))
        model.eval()
        for rows in (1, 4):
            x = normal(rows, *shape)
            features, logits = model.features(x), model(x)
            contract.equal(tuple(features.shape), (rows, model.head.in_features), "features of shape")
            contract.equal(tuple(logits.shape), (rows, n_classes), "logits of shape")
            contract.equal([features.dtype, logits.dtype], [torch.float32] * 2, "dtypes")
            contract.finite(logits, "logits")
            close = torch.allclose(model.head(features), logits, atol=1e-6)
            contract.expect(close, "logits that are head(features)", logits)


def _check_weights(contract: Contract, name: str, settings: Mapping[str, object]) -> None:
    (one, shape), (again, _) = (_model(contract, name, settings) for _ in "ab")
    with contract.rule("its weights are drawn from torch's seed"):
        contract.equal(parameters_of(again), parameters_of(one), "the same weights for the same seed")
    with contract.rule("another one loads its weights and buffers and gives the same logits"):
        other, _ = _model(contract, name, settings, seed=1)
        one.train()
        one(normal(4, *shape))  # so that buffers, if any, differ from those of a new model
        load_into(other, {k: torch.from_numpy(v) for k, v in (parameters_of(one) | buffers_of(one)).items()})
        x = normal(5, *shape, seed=1)
        contract.equal(other.eval()(x), one.eval()(x), "the same logits")


def _check_trains(contract: Contract, name: str, settings: Mapping[str, object]) -> None:
    model, shape = _model(contract, name, settings)
    x, y = normal(6, *shape), torch.tensor([0, 1, 2, 0, 1, 0])
    with contract.rule("every trainable parameter has a finite gradient"):
        model.train()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                contract.expect(parameter.grad is not None, f"a gradient of {key}", "none")
                contract.finite(parameter.grad, f"a gradient of {key}")
    with contract.rule("local training changes its weights and has a finite loss"):
        model, _ = _model(contract, name, settings)
        before = parameters_of(model)
        spec = TrainSpec("train", 3, 3, "sgd", 0.1, 0.9, 0.0, CrossEntropy(), Shuffle())
        result = train_locally(model, x, y, spec, torch.Generator().manual_seed(0))
        contract.equal(result.steps, 3, "steps")
        contract.finite(np.array(result.loss), "a loss")
        after = parameters_of(model)
        contract.expect(any(not np.array_equal(v, before[k]) for k, v in after.items()), "other weights", "the same")
