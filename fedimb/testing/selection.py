"""The contracts of rules that choose rows: query rules of active learning and coreset rules."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from fedimb import registry
from fedimb.errors import DataError
from fedimb.selection.coresets.base import Candidates
from fedimb.selection.queries.base import ModelOutputs, QueryInput, Which
from fedimb.testing.expectations import COUNTS, Contract, build, check_yaml

CLIENTS: dict[str, tuple[list[int], list[int], int]] = {
    "tail": ([60, 20, 6, 2], [12, 4, 2, 1], 16),
    "one_row": ([0, 1, 0], [1, 0, 2], 1),
    "one_row_no_labels": ([1, 0], [0, 0], 1),
    "two_classes": ([9, 3], [2, 1], 5),
    "no_labels": ([30, 5, 2], [0, 0, 0], 9),
    "never_labelled": ([20, 8, 4, 0], [5, 3, 0, 0], 10),
    "one_labelled_class": ([10, 10, 10], [0, 4, 0], 12),
    "one_class_in_all": ([15, 0, 0], [3, 0, 0], 6),
    "fewer_than_classes": ([9, 7, 5, 4, 3, 2, 2, 1], [4, 3, 2, 1, 1, 1, 0, 0], 3),
    "all_of_it": ([7, 4, 2], [2, 1, 1], 13),
    "more_than_all": ([7, 4, 2], [2, 1, 1], 40),
    "nothing_asked": ([7, 4, 2], [2, 1, 1], 0),
    "empty_pool": ([0, 0, 0], [2, 1, 1], 4),
}
"""Rows of each class in the pool, labelled rows of each class, and the budget."""

MODELS: tuple[Which, ...] = ("global", "local")
_BY_ROW = ("embeddings", "features", "logits", "history")


def rows_seen(labels: Tensor, n_classes: int, width: int, seed: int, sure: float = 2.0) -> ModelOutputs:
    """Rows around one centre per class, and the logits of a moderately accurate model."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_classes, width, generator=torch.Generator().manual_seed(99))
    features = centres[labels] + 0.5 * torch.randn(len(labels), width, generator=generator)
    logits = sure * features @ centres.T / width + torch.randn(len(labels), n_classes, generator=generator)
    return ModelOutputs(features, logits)


def question(
    counts: list[int], labelled: list[int], budget: int, seed: int = 0, width: int = 8, draw: int = 0, **given: Any
) -> QueryInput:
    """The input of a query rule at one client.

    Args:
        counts, labelled: rows of each class in the pool and among the labelled rows.
        budget: number of rows to choose.
        seed, draw: seeds of the rows, and of the generator that the rule draws from.
        given: other fields of `QueryInput`.
    """
    rows, known_rows = torch.tensor(counts), torch.tensor(labelled)
    n_classes = len(rows)
    hidden = torch.arange(n_classes).repeat_interleave(rows)
    hidden = hidden[torch.randperm(len(hidden), generator=torch.Generator().manual_seed(seed))]
    labels = torch.arange(n_classes).repeat_interleave(known_rows)
    pool = {w: rows_seen(hidden, n_classes, width, 10 * seed + i) for i, w in enumerate(MODELS)}
    known = {w: rows_seen(labels, n_classes, width, 10 * seed + 5 + i) for i, w in enumerate(MODELS)}
    said: dict[str, Any] = {"hidden": hidden, "gamma": 0.6, "pool": pool, "labelled": known} | given
    return QueryInput(budget, n_classes, labels, generator=torch.Generator().manual_seed(draw), **said)


def check_query(name: str, **settings: Any) -> None:
    """Check that a query rule gives the requested number of distinct positions, reproducibly, from what it declares.

    Args:
        name: as registered under kind ``query``.
        settings: settings of the rule, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("query", name)
    check_yaml(contract, "query", name)
    for case, asked in CLIENTS.items():
        for which in MODELS:
            _check_positions(Contract("query", name, f"{case}, {which} model"), name, settings, asked, which)
    for fill in (0.0, 0.3, -2.0):
        for budget in (1, 7, 12):
            contract = Contract("query", name, f"all rows {fill}, budget {budget}")
            with contract.rule("it can also choose from identical rows"):
                same_rows = _identical(question([8, 3, 1], [2, 1, 0], budget), fill)
                _expect_positions(contract, build("query", name, settings).select(same_rows), same_rows)
    contract = Contract("query", name)
    _check_hidden(contract, name, settings)
    _check_models(contract, name, settings)
    _check_finite(contract, name, settings)


def _expect_positions(contract: Contract, positions: Tensor, asked: QueryInput) -> None:
    count = min(asked.budget, asked.size)
    contract.expect(positions.dtype == torch.int64 and positions.shape == (count,), f"int64 [{count}]", positions)
    contract.expect(len(set(positions.tolist())) == count, "distinct positions", positions)
    inside = count == 0 or 0 <= int(positions.min()) <= int(positions.max()) < asked.size
    contract.expect(inside, f"positions from 0 to {asked.size - 1}", positions)


def _tensors(asked: QueryInput) -> list[Tensor]:
    parts = [t for view in (asked.pool, asked.labelled) for one in view.values() for t in (one.features, one.logits)]
    return [asked.labels, *([] if asked.hidden is None else [asked.hidden]), *parts]


def _identical(asked: QueryInput, fill: float) -> QueryInput:
    def identical(rows: int) -> dict[Any, ModelOutputs]:
        return {w: ModelOutputs(torch.full((rows, 8), fill), torch.full((rows, asked.n_classes), fill)) for w in MODELS}

    return replace(asked, pool=identical(asked.size), labelled=identical(len(asked.labels)))


def _check_positions(
    contract: Contract, name: str, settings: Mapping[str, Any], case: tuple[list[int], list[int], int], which: Which
) -> None:
    with (
        contract.rule("distinct positions, as many as requested, the same for the same seed"),
        contract.own_randomness(),
    ):
        asked = question(*case, which=which)
        before = [t.clone() for t in _tensors(asked)]
        positions = build("query", name, settings).select(asked)
        _expect_positions(contract, positions, asked)
        again = build("query", name, settings).select(question(*case, which=which))
        contract.equal(again, positions, "the same positions for the same seed")
        contract.equal(_tensors(asked), before, "inputs as they were")
        for key, value in asked.notes.items():
            fits = isinstance(value, float) or value.shape == (asked.n_classes,)
            contract.expect(fits, f"a note '{key}' that is a float or [{asked.n_classes}]", value)


def _check_hidden(contract: Contract, name: str, settings: Mapping[str, Any]) -> None:
    with contract.rule("only an oracle sees hidden labels, and declares it"):
        case = CLIENTS["tail"]
        hidden = question(*case).hidden
        assert hidden is not None
        one, other = (
            build("query", name, settings).select(question(*case, hidden=labels)) for labels in (hidden, hidden.flip(0))
        )
        if registry.get("query", name).factory.oracle:  # type: ignore[attr-defined]
            contract.expect(not torch.equal(one, other), "other rows for other hidden labels", other)
            with contract.refuses(ValueError, "hidden labels of all 88"):
                build("query", name, settings).select(question(*case, hidden=None))
        else:
            contract.equal(other, one, "the same rows for other hidden labels")
            without = build("query", name, settings).select(question(*case, hidden=None))
            contract.equal(without, one, "the same rows without hidden labels")


def _check_models(contract: Contract, name: str, settings: Mapping[str, Any]) -> None:
    case, found = CLIENTS["tail"], []
    for which in MODELS:
        with contract.rule(f"with the {which} model it reads only the models it declares"):
            rule, asked = build("query", name, settings), question(*case, which=which)
            named = rule.reads(which) or {which}  # a rule that reads no model still needs the number of rows
            few: dict[str, Any] = {view: {w: getattr(asked, view)[w] for w in named} for view in ("pool", "labelled")}
            found.append(build("query", name, settings).select(question(*case, which=which)))
            contract.equal(rule.select(replace(asked, **few)), found[-1], "the same rows")
    with contract.rule("an adaptive rule chooses other rows with the other model, and another rule does not"):
        adaptive = registry.get("query", name).factory.adaptive  # type: ignore[attr-defined]
        contract.equal(not torch.equal(*found), adaptive, "other rows if and only if adaptive")


def _check_finite(contract: Contract, name: str, settings: Mapping[str, Any]) -> None:
    rule = build("query", name, settings)
    for model in rule.reads("global"):
        for view in ("pool", "labelled"):
            for what in ("features", "logits"):
                asked = question(*CLIENTS["tail"])
                seen = getattr(asked, view)[model]
                getattr(seen, what)[3, 1] = torch.nan if view == "pool" else torch.inf
                says = (
                    f"{what} of 1 of {len(seen.logits)} {view} rows are not finite under the {model} model, "
                    "the first at position 3"
                )
                with contract.rule("non-finite values are refused with their place"), contract.refuses(DataError, says):
                    rule.select(asked)


def candidates(counts: list[int], seed: int = 0, identical: bool = False) -> Candidates:
    """The input of a coreset rule at one client, with everything a rule may read.

    Args:
        counts: rows of each class.
        identical: whether all rows are identical.
    """
    generator = torch.Generator().manual_seed(seed)
    classes, n = len(counts), sum(counts)
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    labels = labels[torch.randperm(n, generator=generator)]
    features = torch.randn(n, 6, generator=generator)
    embeddings = torch.nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1)
    logits, history = torch.randn(n, classes, generator=generator), torch.randn(4, n, classes, generator=generator)
    if identical:
        features, logits, history = torch.ones_like(features), torch.zeros_like(logits), torch.zeros_like(history)
        embeddings = torch.nn.functional.normalize(torch.ones_like(embeddings), dim=1)
    centres = torch.randn(classes, 6, generator=generator)
    centres[torch.tensor(counts) == 0] = torch.nan
    total = 3.0 * torch.tensor(counts, dtype=torch.float64) + 5
    return Candidates(labels, classes, generator, embeddings, features, logits, history.softmax(2), centres, total)


def check_coreset(name: str, **settings: Any) -> None:
    """Check that a coreset rule keeps exactly the requested rows, in total or per class, from what it declares to need.

    A rule with the flag ``keeps_all`` is checked only with all rows.

    Args:
        name: as registered under kind ``coreset``.
        settings: settings of the rule, instead of those in its YAML.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("coreset", name)
    check_yaml(contract, "coreset", name)
    given = candidates(COUNTS["tail"])
    with contract.rule("with a budget of all rows it keeps all"):
        contract.equal(_kept(name, settings, given, 47).tolist(), list(range(47)))
    if registry.flags("coreset", name).get("keeps_all"):
        return
    for case, counts in COUNTS.items():
        for identical in (False, True):
            words = f"{case}{', identical rows' if identical else ''}"
            _check_budgets(Contract("coreset", name, words), name, settings, counts, identical)
    for seed in range(4):
        drawn = torch.randint(0, 15, (2 + seed % 3,), generator=torch.Generator().manual_seed(seed)).tolist()
        check_any_client(Contract("coreset", name, f"rows {drawn}"), name, settings, drawn, 0.3 * seed, seed)
    _check_coreset_repeats(contract, name, settings)
    _check_coreset_needs(contract, name, settings)
    _check_coreset_refusals(contract, name, settings)


def _kept(
    name: str, settings: Mapping[str, Any], given: Candidates, keep: int, per_class: Tensor | None = None, seed: int = 1
) -> Tensor:
    seeded = replace(given, generator=torch.Generator().manual_seed(seed))
    kept: Tensor = build("coreset", name, settings).select(seeded, keep, per_class)
    return kept


def _expect_kept(contract: Contract, chosen: Tensor, n: int, keep: int) -> None:
    contract.expect(chosen.dtype == torch.int64 and chosen.shape == (keep,), f"int64 [{keep}]", chosen)
    contract.expect(chosen.tolist() == sorted(set(chosen.tolist())), "ascending, distinct positions", chosen)
    inside = keep == 0 or 0 <= int(chosen[0]) <= int(chosen[-1]) < n
    contract.expect(inside, f"positions from 0 to {n - 1}", chosen)


def _check_budgets(
    contract: Contract, name: str, settings: Mapping[str, Any], counts: list[int], identical: bool
) -> None:
    given, n = candidates(counts, identical=identical), sum(counts)
    with contract.rule("exactly as many rows as requested"):
        for keep in {0, min(1, n), n // 3, n // 2, max(0, n - 1), n}:
            _expect_kept(contract, _kept(name, settings, given, keep), n, keep)
    with contract.rule("exactly as many rows of each class as requested"):
        for part in (0, 0.4, 0.7, 1):
            per_class = (torch.tensor(counts) * part).ceil().long()
            chosen = _kept(name, settings, given, int(per_class.sum()), per_class)
            _expect_kept(contract, chosen, n, int(per_class.sum()))
            contract.equal(torch.bincount(given.labels[chosen], minlength=len(counts)), per_class, "rows of each class")


def check_any_client(
    contract: Contract, name: str, settings: Mapping[str, Any], counts: list[int], share: float, seed: int
) -> None:
    """Check that it keeps as many rows as requested for a client with any class counts."""
    given, keep = candidates(counts, seed), round(share * sum(counts))
    with contract.rule("any client, any budget"):
        _expect_kept(contract, _kept(name, settings, given, keep), sum(counts), keep)


def _check_coreset_repeats(contract: Contract, name: str, settings: Mapping[str, Any]) -> None:
    with contract.rule("the same seed gives the same rows, and inputs are unchanged"), contract.own_randomness():
        given = candidates(COUNTS["tail"])
        before = [value.clone() for value in vars(given).values() if isinstance(value, Tensor)]
        one = _kept(name, settings, given, 20)
        contract.equal(_kept(name, settings, given, 20), one, "the same rows for the same seed")
        contract.equal([value for value in vars(given).values() if isinstance(value, Tensor)], before, "inputs")


def _check_coreset_needs(contract: Contract, name: str, settings: Mapping[str, Any]) -> None:
    given, needs = candidates(COUNTS["tail"]), build("coreset", name, settings).needs
    optional = {f.name for f in fields(Candidates) if f.default is None}
    with contract.rule("it reads only what its 'needs' names"):
        contract.expect(needs <= optional, f"needs of {sorted(optional)}", sorted(needs))
        nothing: dict[str, Any] = dict.fromkeys(optional - needs)
        bare = replace(given, **nothing)
        chosen = _kept(name, settings, bare, 20)
        contract.equal(chosen, _kept(name, settings, given, 20), "the same rows without what it does not need")
        for field in needs:
            with contract.refuses(DataError, field):
                one_less: dict[str, Any] = {field: None}
                _kept(name, settings, replace(given, **one_less), 20)
    with contract.rule("non-finite values are refused by name and row"):
        for field in needs & set(_BY_ROW):
            for value in (torch.nan, torch.inf):
                broken = getattr(given, field).clone()
                broken[..., 11, 0] = value
                with contract.refuses(DataError, f"{field} of 1 of 47 rows are NaN or infinite, first row 11"):
                    _kept(name, settings, replace(given, **{field: broken}), 20)


def _check_coreset_refusals(contract: Contract, name: str, settings: Mapping[str, Any]) -> None:
    given = candidates(COUNTS["tail"])
    with contract.rule("invalid budgets and columns are refused"):
        with contract.refuses(DataError, "cannot keep 48 of 47"):
            _kept(name, settings, given, 48)
        with contract.refuses(DataError, "summing to 20"):
            _kept(name, settings, given, 20, torch.tensor([10, 5, 1, 0]))
        with contract.refuses(DataError, "cannot keep 2 rows of class 2: the client has 1"):
            _kept(name, settings, given, 12, torch.tensor([10, 0, 2, 0]))
        with contract.refuses(DataError, "labels run"):
            _kept(name, settings, replace(given, n_classes=2), 20)
        if needs := build("coreset", name, settings).needs & set(_BY_ROW):
            field = min(needs)
            with contract.refuses(DataError, f"{field} of shape"):
                _kept(name, settings, replace(given, **{field: getattr(given, field)[..., :5, :]}), 20)
