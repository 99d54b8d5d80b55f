"""Everything that may leave a site in a run, derived from the contracts: the table that a study plan lists."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field

from fedimb import registry
from fedimb.contracts import platform as names
from fedimb.contracts.base import Contract, Record
from fedimb.contracts.region import PARTIAL, PARTIAL_BUFFERS
from fedimb.data.subgroups import group_names, parse_subgroups
from fedimb.deploy.study_plan.ranges import Range, largest
from fedimb.errors import ConfigError
from fedimb.evaluation.probabilities import BINS
from fedimb.privacy.recoverable_sum import can_recover
from fedimb.schema import PrivacyConfig, RunConfig, Strict

COUNTS_OF = {
    "clear_sum": names.CLASS_COUNTS,
    "secure_sum": names.MASKED_COUNTS,
    "dp_sum": names.NOISY_COUNTS,
}
"""The platform query a run sends, by ``prior.provenance``. Other values send none."""
MASKED = {names.MASKED_COUNTS, names.NOISY_COUNTS, names.MASKED_SCORES, names.MASKED_LOSSES}
"""Queries for masked figures; from four sites on, two more messages open each sum."""
OPENING = (f"query.{names.SUM_AGREE}", f"query.{names.SUM_OPEN}")
"""Types of these two."""

EVERY = "every reply"


class Sizes(Strict):
    """Sizes of the model and the federation, from which the sizes of records follow.

    Attributes:
        classes: number of classes C.
        domains: number of domains D; in a deployment, the number of sites.
        features: number of features d that the model's head takes.
        parameters: number of trained parameters.
        weight_bytes, buffer_bytes: bytes of the trained weights and of the buffers.
    """

    classes: int = Field(ge=1)
    domains: int = Field(ge=1)
    features: int = Field(ge=1)
    parameters: int = Field(ge=0)
    weight_bytes: int = Field(ge=0)
    buffer_bytes: int = Field(ge=0)


class OutboundRecord(Strict):
    """One row of the table: a record of a reply.

    Attributes:
        message: type of the message that the reply answers.
        record: key of the record.
        content: what it contains.
        shape: its shape, in terms of C, d and D.
        most_bytes: largest payload of one reply in bytes; None: not limited by the contract.
        often: how often it is sent.
        sensitivity: kind of information, see `fedimb.contracts.base.Record`.
        protection: how it is protected.
        refusable: whether a site's policy may withhold it.
    """

    message: str
    record: str
    content: str
    shape: str
    most_bytes: int | None
    often: str
    sensitivity: str
    protection: str
    refusable: bool


def sizes_of(config: RunConfig, n_classes: int, input_shape: tuple[int, ...]) -> Sizes:
    """Build the model once and measure what of it is sent; of sites' own networks the largest of each size."""
    from fedimb.config.parts import build_model  # imports torch, which a supervisor that counts its inbox does not need
    from fedimb.config.site_models import kind_configs, shared_of
    from fedimb.models.base import buffers_of, parameters_of

    sizes = []
    for own in kind_configs(config).values():
        model = build_model(own, n_classes, input_shape)
        trained = shared_of(own, parameters_of(model)).values()
        buffers = shared_of(own, buffers_of(model)).values()
        numbers = sum(p.size for p in trained), sum(p.nbytes for p in trained), sum(b.nbytes for b in buffers)
        sizes.append((model.head.in_features, *numbers))
    features, parameters, weight_bytes, buffer_bytes = (max(column) for column in zip(*sizes, strict=True))
    return Sizes(
        classes=n_classes,
        domains=config.clients.count,
        features=features,
        parameters=parameters,
        weight_bytes=weight_bytes,
        buffer_bytes=buffer_bytes,
    )


def queries_of(config: RunConfig) -> dict[str, Contract]:
    """The queries a run may send, by name, with the contract that declares each.

    Of the platform's queries: joining, scores, losses by temperature and explanations if they are wanted, and class
    counts if the run's prior is made from them or a method declares that it asks for them (flag ``reveals_counts``). Of
    the methods' queries: those that their settings send.
    """
    from fedimb.config.parts import (
        contracts_of,
    )  # imports torch, which a supervisor that counts its inbox does not need

    platform, *methods = contracts_of(config)
    asked = {names.JOIN_SITE, COUNTS_OF.get(config.prior.provenance)}
    if config.data["test"]["name"] == "none":
        asked.add(names.MASKED_SCORES if config.evaluation.secure else names.SCORED)
    if config.evaluation.temperature:
        asked.add(names.MASKED_LOSSES)
    if set(config.explanation) - {"none"}:
        asked.add(names.EXPLAIN)
    if any(registry.flags("strategy", name).get("reveals_counts") for name in config.strategy):
        asked.add(names.CLASS_COUNTS)
    if asked & MASKED and can_recover(config.clients.count):
        asked |= {names.SUM_AGREE, names.SUM_OPEN}
    found = {query: platform for query in platform.queries if query in asked}
    return found | {query: method for method in methods for query in method.queries}


def message_types(config: RunConfig) -> frozenset[str]:
    """Types of the messages that a node answers under a plan with this configuration."""
    return frozenset({"train"} | {f"query.{query}" for query in queries_of(config)})


@dataclass(frozen=True)
class Repetition:
    """How often a method's program runs in a run: once, or once in each cycle of the methods around it.

    Attributes:
        contract: the method's contract.
        name, settings: its registered name and its settings.
        times: how often.
    """

    contract: Contract
    name: str
    settings: Mapping[str, Any]
    times: int

    @staticmethod
    def of(config: RunConfig, vary: Mapping[str, Range] | None = None) -> "list[Repetition]":
        """One for each method, outermost first; settings that may vary count with their largest value."""
        from fedimb.config.parts import contracts_of  # imports torch, see `queries_of`

        found, times = [], 1
        for contract, (name, args) in zip(contracts_of(config)[1:], config.strategy.items(), strict=True):
            found.append(Repetition(contract, name, args or {}, times))
            if contract.repeats:
                times *= found[-1].setting(contract.repeats, vary or {})
        return found

    def setting(self, key: str, vary: Mapping[str, Range]) -> int:
        """A whole number among the method's settings, as large as it may be. Raises ConfigError if it is not one."""
        if not isinstance(self.settings.get(key), int):
            raise ConfigError(
                f"strategy '{self.name}': its contract says that a query is sent as often as its setting '{key}' says, "
                "which is not a whole number: correct `most` or `repeats` of the contract"
            )
        return int(largest(f"strategy.{self.name}.{key}", self.settings[key], vary))

    def most(self, query: str, rounds: int, vary: Mapping[str, Range]) -> int:
        """How often at most a query of the method is sent in a run."""
        given = self.contract.most.get(query, rounds)
        return self.times * (given if isinstance(given, int) else self.setting(given, vary))


def message_counts(config: RunConfig, rounds: int, vary: Mapping[str, Range] | None = None) -> dict[str, int]:
    """How many different messages of each type a site answers in one run.

    Args:
        rounds: the run's rounds.
        vary: settings that may vary; None: a run's own settings.
    """
    methods = Repetition.of(config, vary)
    found = {"train": rounds}
    for query, contract in queries_of(config).items():
        own = [each for each in methods if each.contract is contract]
        found[f"query.{query}"] = sum(each.most(query, rounds, vary or {}) for each in own) or 1
    if f"query.{names.CLASS_COUNTS}" in found:  # once for the prior, and once for each method that asks for them
        asking = [m for m in methods if registry.flags("strategy", m.name).get("reveals_counts")]
        found[f"query.{names.CLASS_COUNTS}"] += sum(m.times for m in asking)
    sums = sum(found.get(f"query.{query}", 0) for query in MASKED)
    return found | {kind: sums for kind in OPENING if kind in found}


def outbound_records(
    config: RunConfig, sizes: Sizes, rounds: int, vary: Mapping[str, Range] | None = None
) -> list[OutboundRecord]:
    """The table of outbound records, in the order of the contracts.

    Args:
        config: the plan's configuration.
        sizes: see `Sizes`.
        rounds: the largest number of rounds a run may have.
        vary: settings that may vary between runs.
    """
    from fedimb.config.parts import (
        contracts_of,
    )  # imports torch, which a supervisor that counts its inbox does not need

    each_round = f"once in each of at most {rounds} rounds"
    counts = message_counts(config, rounds, vary)
    contracts = contracts_of(config)
    rows = [_row("train", r, each_round, config, sizes) for contract in contracts for r in contract.train if _own(r)]
    for query, contract in queries_of(config).items():
        often = contract.often.get(query, "as often as the method asks")
        often += f" (at most {n} in a run)" if (n := counts[f"query.{query}"]) > 1 else ""
        rows += [_row(f"query.{query}", r, often, config, sizes) for r in contract.queries[query] if _own(r)]
    unsent = {names.BUFFERS, PARTIAL_BUFFERS} if sizes.buffer_bytes == 0 else set()
    unsent |= {names.CONFUSION} if config.evaluation.secure else set()
    unsent |= set() if config.data.get("subgroups") else {names.SUBGROUPS}
    unsent |= set() if can_recover(config.clients.count) else {names.SHARES}
    rows = [row for row in rows if row.record not in unsent]
    each = [*(r for r in contracts[0].train if r.key == names.STATE), names.AUDIT_HEAD, names.SITE_SIGNATURE]
    return [*rows, *(_row(EVERY, record, EVERY, config, sizes) for record in each)]


def _own(record: Record) -> bool:
    return record.key != names.STATE


def _row(message: str, record: Record, often: str, config: RunConfig, sizes: Sizes) -> OutboundRecord:
    if record.key == names.SCORES:  # a matrix per calibration of the run
        record = replace(record, shape=f"{len(config.calibration)} x {record.shape}")
    if record.key == names.SUBGROUPS:
        record = replace(record, shape=subgroup_shape(config))
    return OutboundRecord(
        message=message,
        record=record.key,
        content=record.content,
        shape=_shape(message, record, sizes),
        most_bytes=_most_bytes(message, record, sizes),
        often=often,
        sensitivity=record.sensitivity,
        protection=_protection(message, record, config),
        refusable=record.reveals is not None or record.sensitivity == "individual",
    )


def subgroup_shape(config: RunConfig) -> str:
    """Number of values of ``x.subgroups``, as ``n x C + m``; empty where its groups depend on rows."""
    subgroups = parse_subgroups(config.data.get("subgroups"))
    if not subgroups:
        return ""
    try:
        groups = group_names(subgroups, [str(site) for site in range(config.clients.count)])
    except ConfigError:  # refused when a plan is made (`fedimb.deploy.coordinator.plan_checks`)
        return ""
    attributes, most = len(groups), max(map(len, groups))
    cells = attributes * most
    return f"{cells * (2 + len(config.calibration) * (1 + 2 * BINS))} x C + {cells * cells}"


def _of_the_model(message: str, record: Record) -> bool:
    """Whether a record is as large as the trained model. A method may send other weights, such as a generator's."""
    return message == "train" and record.sensitivity == "model" and record.kind == "arrays" and not record.shape


def _shape(message: str, record: Record, sizes: Sizes) -> str:
    if _of_the_model(message, record):
        return f"{sizes.parameters} parameters" if record.key != names.BUFFERS else "buffers"
    return record.shape or ("text" if record.kind == "config" else "numbers" if record.kind == "metrics" else "any")


def _most_bytes(message: str, record: Record, sizes: Sizes) -> int | None:
    widest = max((np.dtype(name).itemsize for name in record.dtypes), default=None)
    if record.max_bytes is not None:
        return record.max_bytes
    if _of_the_model(message, record):
        own = sizes.buffer_bytes if record.key == names.BUFFERS else sizes.weight_bytes
        return own if widest is None else sizes.parameters * widest
    values = count_values(record.shape, sizes)
    return None if values is None or widest is None else values * widest


def count_values(shape: str, sizes: Sizes) -> int | None:
    """Evaluate a shape such as ``3 x C + 2``; of ``C x C or C x 2 x 2`` the larger. None if unknown before the run."""
    known = {"C": sizes.classes, "d": sizes.features, "D": sizes.domains}
    known["t"] = sizes.features * (sizes.features + 1) // 2
    if " or " in shape:
        either = [count_values(one, sizes) for one in shape.split(" or ")]
        return None if None in either else max(one for one in either if one is not None)
    total = 0
    for term in shape.split(" + "):
        factors = [known.get(f, int(f) if f.isdigit() else None) for f in term.split(" x ")]
        if None in factors:
            return None
        total += math.prod(f for f in factors if f is not None)
    return total


def _protection(message: str, record: Record, config: RunConfig) -> str:
    if record.about == "masked":
        noise = ""
        if message == f"query.{names.NOISY_COUNTS}":
            noise = f", with noise (epsilon {config.prior.epsilon:g}, delta {config.prior.delta:g})"
        whose = "all, or of those that replied" if can_recover(config.clients.count) else "all"
        return f"masked between sites: the coordinator reads only the sum of {whose}{noise}"
    if record.sensitivity == "operational":
        return "encrypted on its way"
    whose = "this site's own update" if record.sensitivity == "model" else "this site's own figures"
    whose = whose if config.clients.regions is None else "a sum over this region's sites"
    return f"encrypted on its way; the coordinator reads {whose}{_changed(message, record, config.privacy)}"


def _changed(message: str, record: Record, privacy: PrivacyConfig) -> str:
    """How a round's weights are clipped and noised before they leave."""
    if message != "train" or record.key not in (names.ARRAYS, PARTIAL) or privacy.clip is None:
        return ""
    cut = f", {'each site cut' if record.key == PARTIAL else 'cut'} to a norm of {privacy.clip:g}"
    return cut if not privacy.noise else f"{cut} and with its share of noise ({privacy.noise:g} x {privacy.clip:g})"
