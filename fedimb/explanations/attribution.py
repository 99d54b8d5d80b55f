"""Attributions: how much each input of a row contributes to the logit of its class. Base of those by captum."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.explanations.base import (
    ClientArrays,
    ClientRows,
    Explained,
    Explanation,
    Floor,
    choose_rows,
    weighted_mean,
)
from fedimb.explanations.layout import InputLayout
from fedimb.explanations.quality import RANDOM_MODELS, evidence, rank_correlation, sanity
from fedimb.models.base import Classifier
from fedimb.registry.arguments import Count, PositiveCount

Baseline = Literal["zero", "mean"]
_BATCH = 64


class Attribution(Explanation):
    """Base class of attributions; a subclass implements `attribute`.

    Args:
        floor: fewest people of a class at a client, of whom a mean map may leave.
        rows: most rows of a class that a client explains, each person's first row first.
        baseline: what "nothing" is: ``zero`` (black; of a scaled table the mean of all sites) or ``mean`` of the
            client's own rows, of at least ``floor`` people.
        randomized: models with random weights in the sanity check: at least 19, or 0 for none.
        pictures: rows of each class whose maps are kept in the client's own folder.
    """

    needs = ("captum", "explain")
    explains = "attribution"
    rectified: ClassVar[bool] = False
    """Whether only what speaks for the class is shown, as Grad-CAM does."""
    checked_rows: ClassVar[int] = 20
    """Rows of a client that the sanity check explains for every model with random weights; more where they are of
    fewer than ``floor`` people."""

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 50,
        baseline: Baseline = "zero",
        randomized: Count = RANDOM_MODELS,
        pictures: Count = 3,
    ) -> None:
        if 0 < randomized < RANDOM_MODELS:
            raise ConfigError(
                f"explanation '{self.name}': randomized={randomized}: with fewer than {RANDOM_MODELS} random models no "
                f"rank reaches 5 %; give {RANDOM_MODELS} or more, or 0 for no check"
            )
        if rows < floor:
            raise ConfigError(f"explanation '{self.name}': rows={rows} is below floor={floor}: no class would be shown")
        self.floor, self.rows, self.baseline = floor, rows, baseline
        self.randomized, self.pictures = randomized, pictures

    def attribute(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, layout: InputLayout) -> Tensor:
        """Signed attributions of the logit ``target`` of each row.

        Args:
            model: in evaluation mode.
            x: [n, *shape] float32.
            target: [n] int64 class ids.
            baseline: [1, *shape] float32.

        Returns:
            [n, *shape] float32. Randomness comes from torch's global generator, which the caller seeds.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement attribute()")

    def explain(
        self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, layout: InputLayout, seed: int
    ) -> Tensor:
        """`attribute` in batches, repeatable: [n, *shape] float32 without gradients; the model is left as it was."""
        training = model.training
        model.eval()
        parts = []
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                torch.default_generator.manual_seed(seed % 2**63)
                for start in range(0, len(x), _BATCH):
                    batch = slice(start, start + _BATCH)
                    # A copy: captum marks what it is given as needing a gradient.
                    inputs = x[batch].detach().clone()
                    parts.append(self.attribute(model, inputs, target[batch], baseline, layout).detach().float())
        finally:
            model.train(training)
        return torch.cat(parts) if parts else torch.zeros(0, *layout.shape)

    def baseline_of(self, rows: ClientRows) -> Tensor:
        """[1, *shape] float32; zeros too if the client has fewer people than ``floor``."""
        if self.baseline == "mean" and len(np.unique(rows.people)) >= self.floor:
            return rows.x.mean(dim=0, keepdim=True)
        return torch.zeros(1, *rows.layout.shape)

    def at_client(self, rows: ClientRows) -> Explained:
        """Mean maps by class, what stays at the client, and the figures of the sanity check."""
        rng = np.random.default_rng(rows.seed)
        classes = len(rows.class_names)
        chosen = choose_rows(rows.y, rows.people, classes, self.rows, self.floor, rng)
        index = np.concatenate(chosen)
        shape = self._shown(torch.zeros(1, *rows.layout.shape), rows.layout).shape[1:]
        maps = np.zeros((classes, *shape), np.float32)
        counts = np.array([len(own) for own in chosen], np.int64)
        found = Explained({"rows": counts, "maps": maps})
        if not len(index):
            return found
        signed = self._explain(rows, rows.model, index)
        shown = self._shown(signed, rows.layout).numpy()
        starts = np.cumsum([0, *counts])
        for c in np.flatnonzero(counts):
            maps[c] = shown[starts[c] : starts[c + 1]].mean(axis=0)
        kept = np.concatenate([np.arange(starts[c], starts[c] + min(n, self.pictures)) for c, n in enumerate(counts)])
        found.private = {"index": index[kept], "maps": shown[kept], "attributions": signed.numpy()[kept]}
        if self.randomized:
            found.overall = self._check(rows, chosen, starts, signed)
        return found

    def _explain(self, rows: ClientRows, model: Classifier, index: np.ndarray) -> Tensor:
        target = torch.from_numpy(rows.y[index])
        return self.explain(model, rows.x[index], target, self.baseline_of(rows), rows.layout, rows.seed)

    def _shown(self, signed: Tensor, layout: InputLayout) -> Tensor:
        return layout.maps(signed.clamp_min(0) if self.rectified else signed)

    def _check(
        self, rows: ClientRows, chosen: Sequence[np.ndarray], starts: np.ndarray, signed: Tensor
    ) -> dict[str, np.ndarray]:
        """Evidence of the model and of each random one on a few rows of each class, and how alike their maps are."""
        places = self._checked_places(rows.people[np.concatenate(list(chosen))], starts)
        index = np.concatenate(list(chosen))[places]
        own = signed[places]
        shown, said, alike = self._shown(own, rows.layout).numpy(), [evidence(own.numpy())], []
        for k in range(self.randomized):
            other = self._explain(rows, rows.with_random_weights(k), index)
            said.append(evidence(other.numpy()))
            alike.append(rank_correlation(shown, self._shown(other, rows.layout).numpy()))
        return {
            "evidence": np.array(said, np.float32),
            "correlation": np.array([np.mean(alike)], np.float32),
        }

    def _checked_places(self, people: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Places of the rows that are checked: some of each class, and as many more as make ``floor`` people.

        Args:
            people: [n] whose each explained row is.
            starts: [C + 1] first place of each class.
        """
        sizes = np.diff(starts)
        each = max(1, self.checked_rows // int((sizes > 0).sum()))
        rank = np.arange(len(people)) - np.repeat(starts[:-1], sizes)  # within the class
        taken = rank < each
        known = set(people[taken].tolist())
        for place in np.argsort(rank, kind="stable"):
            if len(known) >= self.floor:
                break
            if (person := int(people[place])) not in known:
                known.add(person)
                taken[place] = True
        return np.flatnonzero(taken)

    def combine(
        self, replies: Mapping[int, ClientArrays], layout: InputLayout, class_names: Sequence[str]
    ) -> dict[str, Any]:
        """Mean maps over all clients' rows and the sanity check over all clients."""
        every = list(replies.values())
        rows = np.minimum(np.stack([one["rows"] for one in every]), self.rows)
        maps = weighted_mean(np.stack([one["maps"] for one in every]), rows)
        facts: dict[str, Any] = {
            "rows": rows.sum(axis=0).tolist(),
            "clients": (rows > 0).sum(axis=0).tolist(),
            "kind": layout.kind,
            "features": list(layout.names),
            "maps": np.round(maps, 6).tolist(),
        }
        checked = [one for one in every if "evidence" in one and len(one["evidence"]) == self.randomized + 1]
        if checked:
            said = np.mean([one["evidence"] for one in checked], axis=0)
            facts["sanity"] = sanity(said, float(np.mean([one["correlation"] for one in checked]))).facts()
        return facts
