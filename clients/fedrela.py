"""FedReLa at a site: choose new labels once, and train on them."""

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.contracts.fedrela import MOVED, RELABEL, FedReLaSettings
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.training.objectives.base import trained_model
from fedimb.training.relabelling import flip_rates, relabelled
from fedimb.training.spec import TrainSpec


@register("client", "fedrela")
class FedReLaClient(Client):
    """FedReLa at a site.

    Args:
        settings: a `FedReLaSettings`; or give its fields by name.
    """

    def __init__(self, settings: FedReLaSettings | None = None, **fields: object) -> None:
        self.settings = FedReLaSettings.of(settings, fields)

    def check(self, site: Site) -> None:
        """Refuse several labels per row."""
        if site.task != "multiclass":
            raise ConfigError(
                "strategy=fedrela moves rows between classes and needs one class per row, but these have several "
                "labels; use another strategy"
            )

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train on the new labels, once they are chosen for these weights."""
        key = _key(context)
        if key not in context.state:
            return spec
        kept = arrays_of(context.state, key)
        rows, labels = context.data.rows(spec.view), context.data.primary(spec.view).clone()
        known = np.isin(rows, kept["rows"])
        at = np.searchsorted(kept["rows"], rows[known])
        labels[torch.from_numpy(known).to(labels.device)] = torch.from_numpy(kept["labels"][at]).to(labels.device)
        return spec.change(labels=labels, lr=spec.lr * self.settings.lr_factor)

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Choose new labels of the rows trained on, and report how many moved from class to class."""
        assert name == RELABEL, name
        logits = context.forward("trained_on")[1].cpu().double()
        labels = context.data.tensors("trained_on")[1].cpu()
        classes = logits.shape[1]
        new = labels
        if len(labels):
            rates = flip_rates(logits.softmax(1), labels, self.settings.top_percent)
            if not self.settings.absent_target:
                rates[:, torch.bincount(labels, minlength=classes) == 0] = -torch.inf
            uniforms = torch.rand(rates.shape, generator=context.generator(), dtype=torch.float64)
            new = relabelled(rates, labels, uniforms)
        for old in [key for key in context.state if key.rpartition("/")[0] == _key(context).rpartition("/")[0]]:
            del context.state[old]
        context.state[_key(context)] = array_record(
            {"rows": context.data.rows("trained_on").copy(), "labels": new.numpy()}
        )
        moved = torch.zeros(classes, classes, dtype=torch.int64)
        changed = new != labels
        moved.index_put_((labels[changed], new[changed]), torch.tensor(1), accumulate=True)
        moved[torch.bincount(labels, minlength=classes) < self.settings.min_count] = 0
        return RecordDict({MOVED: array_record({"moved": moved.numpy()})})


def _key(context: ClientContext) -> str:
    """Of the state: labels belong to the weights that they were chosen with, and not to those after a reset."""
    return f"fedrela/{trained_model(context.content)}"
