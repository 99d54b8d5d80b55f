"""Asks the clients why the final model says what it says, and puts their aggregates together.

In a run with ``explanation=...`` this is the last step of its program; `fedimb.serverapp.explain_run` asks the
simulated clients of a finished run the same.
"""

import logging
from collections import Counter
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedimb.clientapp.explanations import explanations_of
from fedimb.config.parts import build_model
from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.data.inputs import TableColumns
from fedimb.explanations.base import ClientArrays
from fedimb.explanations.layout import InputLayout
from fedimb.explanations.quality import overlap
from fedimb.records import arrays_of
from fedimb.rundir.explanations import Facts, explanation_bytes
from fedimb.schema import RunConfig
from fedimb.serverapp.steps import Query, Step

if TYPE_CHECKING:
    from fedimb.serverapp.context import RunContext

log = logging.getLogger("fedimb")
WITHHELD = "the clients' policies withhold it (sharing.class_counts, min_patients); raise floor, or share class counts"
OF_CLASSES = frozenset(key.removeprefix("*/") for key in names.EXPLAINED_RECORD.values or ())


def check_explanations(config: RunConfig, federation: Federation, columns: TableColumns | None = None) -> None:
    """Refuse explanations that these data or this model do not allow, before any work.

    Args:
        columns: of a table, where they are known.

    Raises:
        ConfigError: names the explanation, why, and the remedy.
    """
    parts = explanations_of(config)
    if not parts:
        return
    model = build_model(config, federation.n_classes, federation.input_shape)
    layout = InputLayout.of(federation.input_shape, model, columns)
    for part in parts.values():
        part.check(model, layout, federation.task, federation.class_names)


def gather_explanations(context: "RunContext", config: RunConfig, federation: Federation) -> Generator[Step, Any, None]:
    """Sub-program: explain the final model and keep what comes of it as artifacts."""
    parts = explanations_of(config)
    if not parts:
        return
    replies = yield Query(names.EXPLAIN, model=context.final)
    lying = set(context.attackers)  # of a simulated attack: their rows explain nothing
    received = {reply.client: reply.content for reply in replies if reply.client not in lying}
    found = combined(config, federation, received)
    if not found:
        log.warning("no client sent an explanation: %s", WITHHELD)
    for name, facts in found.items():
        context.artifact(f"explanations/{name}.json", explanation_bytes(facts))


def combined(config: RunConfig, federation: Federation, replies: Mapping[int, RecordDict]) -> dict[str, Facts]:
    """What the replies of all clients say, by explanation; empty if no client sent one."""
    sent = {client: _arrays(content) for client, content in replies.items() if names.EXPLAINED in content}
    if not sent:
        return {}
    layout = _layout(config, federation)
    found = {}
    for name, part in explanations_of(config).items():
        own = {
            client: {key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")}
            for client, arrays in sent.items()
        }
        facts: Facts = {"name": name, "explains": part.explains, "settings": config.explanation[name] or {}}
        facts |= {"class_names": list(federation.class_names), "minority": list(federation.minority)}
        fitting = _alike(own)
        without = sorted(set(replies) - set(fitting))
        if without:
            named = ", ".join(map(str, without))
            log.warning("explanation '%s' is without client %s: withheld there, or not like the others'", name, named)
        facts |= {"asked": len(replies), "without": without}
        facts |= part.combine(fitting, layout, federation.class_names)
        if "maps" in facts:
            facts["overlap"] = overlaps(np.array(facts["maps"]), np.array(facts["rows"]), federation.minority)
        found[name] = facts
    return found


def _alike(replies: Mapping[int, ClientArrays]) -> dict[int, ClientArrays]:
    """The replies whose arrays by class have the names and shapes that most replies have."""

    def form(arrays: ClientArrays) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple(sorted((what, array.shape) for what, array in arrays.items() if what in OF_CLASSES))

    forms = Counter(form(arrays) for arrays in replies.values() if "rows" in arrays)
    if not forms:
        return {}
    usual = forms.most_common(1)[0][0]
    return {client: arrays for client, arrays in replies.items() if form(arrays) == usual}


def _arrays(content: RecordDict) -> dict[str, NDArray[Any]]:
    arrays = dict(arrays_of(content, names.EXPLAINED))
    return arrays | (arrays_of(content, names.EXPLAINED_OVERALL) if names.EXPLAINED_OVERALL in content else {})


def overlaps(maps: NDArray[Any], rows: NDArray[Any], minority: tuple[int, ...]) -> dict[str, float | None]:
    """By minority class id, what its map has in common with the mean map of all other classes' rows.

    Args:
        maps: [C, ...] mean maps, each summing to 1, zeros where a class has no rows.
        rows: [C] rows behind each.
    """
    flat = maps.reshape(len(maps), -1)
    common = [c for c in range(len(rows)) if c not in minority and rows[c]]
    if not common:
        return {str(c): None for c in minority}
    mean = (flat[common] * rows[common, None]).sum(axis=0) / rows[common].sum()
    return {str(c): overlap(flat[c], mean) if rows[c] else None for c in minority}


def _layout(config: RunConfig, federation: Federation) -> InputLayout:
    """The layout with column names where the server knows them: not in a deployment, whose rows are at the sites."""
    model = build_model(config, federation.n_classes, federation.input_shape)
    columns = None if federation.client_names else federation.store.columns
    scale = federation.input_scale
    return InputLayout.of(federation.input_shape, model, columns, federation.scaling, scale)
