"""The contract of explanations."""

import json
from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
import torch

from fedimb import registry
from fedimb.contracts.platform import EXPLAINED_OVERALL_RECORD, EXPLAINED_RECORD
from fedimb.data.inputs import TableColumns
from fedimb.engine.record_checks import Sizes, check_record
from fedimb.errors import ConfigError
from fedimb.explanations.base import LEAST_FLOOR, ClientRows, Explained, Explanation
from fedimb.explanations.layout import InputLayout
from fedimb.models.base import Classifier
from fedimb.records import array_record
from fedimb.testing.expectations import COUNTS, Contract, build, check_yaml, labels_of, normal, same

_COLUMNS = TableColumns(("age", "sex", "dose"), {"sex": ("f", "m", "x")}, indicators=("dose",))
_SHAPES = {"table": ("mlp", (6,)), "picture": ("cnn4conv", (1, 8, 8)), "signal": ("cnn1d", (2, 12))}
_FLOOR = 4
_PEOPLE = {"each row a person": 1, "four rows a person": 4}


def check_explanation(name: str, **settings: object) -> None:
    """Check that an explanation sends only aggregates over enough people, repeats itself, and leaves the model alone.

    Args:
        name: as registered under kind ``explanation``.
        settings: settings of the explanation, instead of those in its YAML; ``floor`` is set by the check.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("explanation", name)
    check_yaml(contract, "explanation", name)
    takes = registry.parameters("explanation", name)
    with contract.rule("it is an Explanation that says what it sends and how few people are too few"):
        contract.expect(isinstance(part := _build(name, settings), Explanation), "an Explanation", type(part).__name__)
        contract.equal(part.name, name, "its attribute `name`")
        declared = {record.key for record in registry.flags("explanation", name)["sends"]}
        known = {EXPLAINED_RECORD.key, EXPLAINED_OVERALL_RECORD.key}
        contract.expect(declared <= known, f"records among {sorted(known)}", declared)
        if declared:
            contract.expect("floor" in takes, "a setting `floor`", sorted(takes))
            with contract.refuses(ConfigError, "floor"):
                registry.check_args("explanation", name, {"floor": LEAST_FLOOR - 1})
    if part.needs and find_spec(part.needs[0]) is None:
        return
    explained = 0
    for kind, (model, shape) in _SHAPES.items():
        explained += _check_kind(Contract("explanation", name, kind), name, settings, kind, model, shape)
    with contract.rule("it explains tables, pictures or signals"):
        contract.expect(explained, "at least one of them", "none")


def _build(name: str, settings: Mapping[str, object]) -> Explanation:
    takes = registry.parameters("explanation", name)
    small: dict[str, object] = {"floor": _FLOOR, "rows": 5, "randomized": 19, "pictures": 1, "samples": 12, "steps": 4}
    given = {key: value for key, value in small.items() if key in takes} | dict(settings)
    found: Explanation = build("explanation", name, given)
    return found


def _check_kind(
    contract: Contract, name: str, settings: Mapping[str, object], kind: str, model: str, shape: tuple[int, ...]
) -> bool:
    """Check one kind of rows; returns whether the explanation explains it."""
    names, takes = ("a", "b", "c", "d"), registry.parameters("explanation", name)
    made = _model(model, shape, 0)
    layout = InputLayout.of(shape, made, _COLUMNS if kind == "table" else None)
    with contract.rule("what it cannot explain is refused in one line with a remedy"):
        try:
            _build(name, settings).check(made, layout, "multiclass", names)
        except ConfigError as error:
            contract.expect("\n" not in str(error) and f"'{name}'" in str(error), "one line that names it", str(error))
            return False
    cases = COUNTS if kind == "table" else {"tail": COUNTS["tail"]}  # what is rare is the same in rows of any kind
    for case, counts in cases.items():
        for words, each in _PEOPLE.items():
            inner = Contract("explanation", name, f"{kind}, {case}, {words}")
            checked = kind == "table" and case == "two" and each == 1  # the sanity check is slow: once
            own = settings if checked or "randomized" not in takes else {"randomized": 0, **settings}
            _check_rows(inner, name, own, made, layout, names[: len(counts)], counts, each)
    return True


def _model(name: str, shape: tuple[int, ...], seed: int, classes: int = 4) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found: Classifier = build("model", name, {}, n_classes=classes, input_shape=shape)
    return found.eval()


def _check_rows(
    contract: Contract,
    name: str,
    settings: Mapping[str, object],
    model: Classifier,
    layout: InputLayout,
    names: tuple[str, ...],
    counts: list[int],
    each: int,
) -> None:
    y = labels_of(counts).numpy()
    if len(names) != model.head.out_features:
        kind = {"table": "mlp", "picture": "cnn4conv", "signal": "cnn1d"}[layout.kind]
        model = _model(kind, layout.shape, 0, len(names))
    kind = {"table": "mlp", "picture": "cnn4conv", "signal": "cnn1d"}[layout.kind]
    people = np.arange(len(y)) // each
    rows = ClientRows(
        model=model,
        x=_inputs(layout, len(y)),
        y=y,
        people=people,
        held_out=_inputs(layout, 0),
        class_names=names,
        layout=layout,
        seed=3,
        with_random_weights=lambda k: _model(kind, layout.shape, 1 + k, len(names)),
    )
    with contract.rule("it repeats itself, draws from its own generator, changes neither rows nor model"):
        before = rows.x.clone(), [p.detach().clone() for p in model.parameters()]
        with contract.own_randomness():
            found, again = (_build(name, settings).at_client(rows) for _ in range(2))
        contract.equal((rows.x, [p.detach() for p in model.parameters()]), before, "rows and model as they were")
        contract.expect(not model.training, "a model in evaluation mode", "one in training mode")
        kept = [name for name, p in model.named_parameters() if p.grad is not None]
        contract.expect(not kept, "no gradients left in the model", kept)
        contract.expect(same(vars(found), vars(again)), "the same for the same seed", "something else")
    _check_sent(contract, found, rows)
    with contract.rule("the server makes JSON of one client's and of two clients' arrays"):
        arrays = {**found.by_class, **found.overall}
        for replies in ({0: arrays}, {0: arrays, 3: arrays}) if arrays else ():
            facts = _build(name, settings).combine(replies, layout, names)
            json.dumps(facts, allow_nan=False)
            contract.expect(len(facts["rows"]) == len(names), f"`rows` of {len(names)} classes", facts["rows"])


def _inputs(layout: InputLayout, n: int) -> torch.Tensor:
    x = normal(n, *layout.shape, seed=5)
    if layout.kind == "table" and n:  # age, sex in three inputs, dose, whether dose is missing
        x[:, 1:4] = torch.nn.functional.one_hot(torch.arange(n) % 3, 3).float()
        x[:, 5] = (torch.arange(n) % 5 == 0).float()
    return x


def _check_sent(contract: Contract, found: Explained, rows: ClientRows) -> None:
    """What leaves is declared, and a class of too few people has zeros in every array by class."""
    classes, n = len(rows.class_names), len(rows.y)
    sizes = Sizes({"C": classes, "D": 1, "d": 1, "F": 1}, rows.layout.shape)
    limits = {"rows": float(n), "labels": float(n), "C-1": classes - 1.0}
    with contract.rule("every array that leaves is declared, and within what is declared"):
        for record, arrays in ((EXPLAINED_RECORD, found.by_class), (EXPLAINED_OVERALL_RECORD, found.overall)):
            if arrays:
                sent = array_record({f"it/{what}": array for what, array in arrays.items()})
                fault = check_record(record, sent, None, sizes, limits)
                contract.expect(fault is None, f"what {record.key} declares", fault)
    with contract.rule("of a class with fewer people than `floor` nothing leaves"):
        for c in range(classes):
            people = len(np.unique(rows.people[rows.y == c]))
            for what, array in found.by_class.items():
                contract.expect(len(array) == classes, f"'{what}' with {classes} classes first", array)
                if people < _FLOOR:
                    contract.expect(not np.any(array[c]), f"zeros in '{what}' of class {c}", array[c])
        if len(np.unique(rows.people)) < _FLOOR:
            contract.expect(not found.overall, "nothing over all rows of too few people", sorted(found.overall))


__all__ = ["check_explanation"]
