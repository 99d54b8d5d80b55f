"""Class statistics at a site: count, add up, score rows without themselves. Nothing is trained."""

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.contracts import oneround as names
from fedimb.contracts.oneround import OneRoundSettings
from fedimb.discriminant.estimates import Within
from fedimb.discriminant.leave_one_out import GRID, TEMPERATURES, Fitted, held_out
from fedimb.discriminant.statistics import Floats, Integers, Units, checked, class_sums, scale_of
from fedimb.encoders.embed import embed
from fedimb.errors import ConfigError
from fedimb.models.encoded import Encoded
from fedimb.privacy.gaussian import sigma_of
from fedimb.privacy.secrets import clients_in_sum
from fedimb.privacy.secure_sum import mask_values, to_fixed
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream

VIEW = "trained_on"

_RECORD_OF = {"counts": names.SUMS, "sums": names.SUMS, "squares": names.SUMS, "by_class": names.SQUARES}
_RECORD_OF |= {"second": names.SECOND, "weighted": names.SECOND, "scatter": names.SCATTER}
_MASKED = (names.MASKED_COUNTS_OF, names.MASKED_SUMS_OF, names.MASKED_HELD_OUT_OF)


@register("client", "oneround")
class OneRoundClient(Client):
    """Class statistics at a site.

    Args:
        settings: a `OneRoundSettings`; or give its fields by name.
    """

    forwards: Mapping[str, tuple[str, ...]] = MappingProxyType(dict.fromkeys(names.ONEROUND.queries, (VIEW,)))

    def __init__(self, settings: OneRoundSettings | None = None, **fields: object) -> None:
        self.settings = OneRoundSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=oneround needs one class per row, but these have several labels; use another strategy"
            )

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Counts, sums, sums with noise, or held-out scores; masked where the query says so."""
        classes = len(context.data.store.class_names)
        features, y = self._rows(context, classes)
        if name == names.NOISY_SUMS_OF:
            return self._noisy(features, y, classes, content, context)
        if name in (names.COUNTS_OF, names.MASKED_COUNTS_OF):
            counts = np.bincount(y, minlength=classes).astype(np.int64)
            found = {"counts": counts, "holders": (counts > 0).astype(np.int64), "scale": scale_of(features)}
            record_of = dict.fromkeys(found, names.COUNTS)
        elif name in (names.SUMS_OF, names.MASKED_SUMS_OF):
            found, record_of = self._sums(features, y, classes, content), _RECORD_OF
        else:
            found = self._held_out(features, y, classes, content)
            record_of = dict.fromkeys(found, names.HELD_OUT)
        return _reply(found, record_of, _mask(content, context) if name in _MASKED else None)

    def _rows(self, context: ClientContext, classes: int) -> tuple[Floats, Integers]:
        """Features [n, d] and labels [n] of the rows trained on whose class is known: coarse labels count for none."""
        data = context.data
        if isinstance(context.model, Encoded):  # embeddings are kept on disk
            features = embed(context.model.encoder, data.store, data.rows(VIEW), data.scaling).numpy()
        else:
            features = context.forward(VIEW)[0].cpu().numpy()
        y = data.tensors(VIEW)[1].cpu().numpy().astype(np.int64)
        known = y < classes if data.label_sets is not None else np.ones(len(y), bool)
        y = y[known]
        return checked(features[known], y, data.rows(VIEW)[known], classes), y

    def _sums(self, features: Floats, y: Integers, classes: int, content: RecordDict) -> dict[str, Integers]:
        request: dict[str, Any] = dict(content.config_records[names.REQUEST])
        weights = arrays_of(content, names.WEIGHTS)["weights"] if names.WEIGHTS in content else None
        units = Units(int(request["exponent"]), int(request["bits"]))
        kept, matrices = list(request["kept"]), list(request["matrices"])
        return class_sums(features, y, kept, classes, units, self.settings.fields, weights, matrices)

    def _held_out(self, features: Floats, y: Integers, classes: int, content: RecordDict) -> dict[str, Integers]:
        sent = arrays_of(content, names.FITTED)
        ids = sent["classes"]
        fitted = Fitted(
            sent["counts"],
            sent["means"],
            Within(sent["values"], sent["basis"], float(sent["freedom"][0])),
            sent["log_prior"],
            self.settings.correct_means,
        )
        place = np.full(classes, -1, np.int64)
        place[ids] = np.arange(len(ids))
        inside = place[y] >= 0
        temperatures = TEMPERATURES if self.settings.use == "init" else TEMPERATURES[:1]
        found = held_out(fitted, features[inside], place[y[inside]], GRID, temperatures)
        return {name: _over_all(value, ids, classes) for name, value in found.items()}

    def _noisy(
        self, features: Floats, y: Integers, classes: int, content: RecordDict, context: ClientContext
    ) -> RecordDict:
        settings = self.settings
        assert settings.epsilon is not None
        length = np.linalg.norm(features, axis=1, keepdims=True)
        x = features / np.maximum(length, settings.clip)  # of length at most 1, in units of clip
        counts, sums = np.bincount(y, minlength=classes).astype(np.float64), np.zeros((classes, x.shape[1]))
        np.add.at(sums, y, x)
        more = (
            np.array([np.square(x).sum()]) if "squares" in settings.fields else (x.T @ x)[np.triu_indices(x.shape[1])]
        )
        values = np.concatenate([counts, sums.ravel(), more])
        clients = clients_in_sum(content)
        sigma = sigma_of(settings.epsilon, settings.delta, math.sqrt(3)) / math.sqrt(len(clients))
        values = values + sigma * context.secrets.normal(context, Stream.STATISTICS_NOISE, len(values))
        masked = _mask(content, context)(to_fixed(values))
        return RecordDict({names.NOISY: array_record({"values": masked})})


def _over_all(values: Integers, ids: Integers, classes: int) -> Integers:
    """Values [c, ...] of some classes -> [C, ...]."""
    found = np.zeros((classes, *values.shape[1:]), np.int64)
    found[ids] = values
    return found


def _mask(content: RecordDict, context: ClientContext) -> Any:
    """The function that masks integers [n] for the clients that the query names."""
    clients = clients_in_sum(content)
    return partial(
        mask_values, client=context.client, clients=clients, shared=partial(context.secrets.mask, context, clients)
    )


def _reply(found: Mapping[str, Integers], record_of: Mapping[str, str], mask: Any) -> RecordDict:
    """Arrays in their records; masked as one vector, in the order of their names."""
    arrays: dict[str, np.ndarray] = dict(found)
    if mask is not None:
        order = sorted(found)
        hidden = mask(np.concatenate([found[name].ravel() for name in order]))
        ends = np.cumsum([found[name].size for name in order])[:-1]
        for name, part in zip(order, np.split(hidden, ends), strict=True):
            arrays[name] = part.reshape(found[name].shape)
    records: dict[str, dict[str, np.ndarray]] = {}
    for name, value in arrays.items():
        records.setdefault(record_of[name], {})[name] = value
    return RecordDict({key: array_record(one) for key, one in records.items()})
