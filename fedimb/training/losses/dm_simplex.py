"""DMDSC: features are pulled to the vertex of their class on a fixed simplex, with wider margins for rarer classes.

"Dynamic margin deep simplex classifier", arXiv 2605.00675, with the equations of the code of its follow-up LA-DMDSC:
with d_c^2 the squared distance of the projected features to the vertex s_c, D their number, C the classes and
m_c = m_min + (m_max - m_min) (1 - n_c / N),

    l = d_y^2 / (2 D) + sum over c != y of max(0, m_y + d_y^2 - d_c^2) / (2 C)

and its mean over rows. The vertices are those of ``model.head=simplex``, whose logits are -d^2 and whose D is C - 1;
they are the same at every client and never change, so that no classifier drifts apart. Equal margins give the deep
simplex classifier. Its term for background images is the local objective `simplex_background`.
"""

import numpy as np
import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.losses.base import RowLoss, in_range, of_labels
from fedimb.training.prior import class_prior


@register("loss", "dm_simplex", adjusts_logits=True, needs_prior=True, stackable=True, needs_head="simplex")
class DynamicMarginSimplex(RowLoss):
    """Squared distance to the class's vertex, and hinges against the other vertices with a margin by frequency.

    Args:
        prior: class counts [C] (given by fedimb). A class without rows has the margin of the rarest class with rows.
        min_margin: m_min, at least 0, towards which the margin of a class goes that has nearly all rows.
        max_margin: m_max, at least m_min, towards which that of a rare one goes.

    Raises:
        ConfigError: an argument outside its range.
        ValueError: unusable counts.
    """

    margins: Tensor

    def __init__(self, prior: np.ndarray, min_margin: float = 38.0, max_margin: float = 71.0) -> None:
        super().__init__()
        in_range("dm_simplex", "min_margin", min_margin, 0)
        if in_range("dm_simplex", "max_margin", max_margin, 0) < min_margin:
            raise ConfigError(
                f"loss 'dm_simplex': max_margin={max_margin:g} is below min_margin={min_margin:g}: rare classes would "
                "have the narrower margin"
            )
        margins = min_margin + (max_margin - min_margin) * (1 - class_prior(prior))
        self.register_buffer("margins", torch.from_numpy(margins).to(torch.float32), persistent=False)

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits -d^2 [..., C] float32 and labels [...] int64 -> loss of each row [...]."""
        classes, label = logits.shape[-1], labels[..., None]
        own = -logits.gather(-1, label)
        beyond = (of_labels(self.margins, labels)[..., None] + own + logits).clamp_min(0).scatter(-1, label, 0.0)
        return own[..., 0] / (2 * max(classes - 1, 1)) + beyond.sum(-1) / (2 * classes)
