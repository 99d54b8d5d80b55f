"""Moving rows of frequent classes that look like rarer ones over to them: FedReLa's rule, for one client's rows.

"FedReLa", ICML 2026. With Q_i the class probabilities of row i under the received model and y_i its label:

    z_ij = (Q_ij - mean_{i': y_i' = y_i} Q_i'j) / max(sd of the same, 1e-6)       (population standard deviation)
    t_j  = the (n - 1 - floor(q n / 100))-th smallest z_.j, counted from 0
    r_ij = tanh(z_ij - t_j) max(s_j - s_{y_i}, 0),  s_c = 1 - (n_c - min n) / (max n - min n)

over all C local counts n, s = 1 if all are equal. With a uniform number u_ij for each row and class, the label becomes
the class with the largest r_ij among those with r_ij > u_ij.

Only rows of classes with the lowest s never become anything: rows of other rare classes do move to rarer ones. A class
that the client lacks has s = 1 and is the strongest target.
"""

import torch
from torch import Tensor

_LEAST = 1e-6


def rarity(counts: Tensor) -> Tensor:
    """Rows of each class [C] -> s [C] float64 in [0, 1], 1 for the rarest."""
    rows = counts.double()
    spread = rows.max() - rows.min()
    return 1 - (rows - rows.min()) / spread if spread > 0 else torch.ones_like(rows)


def flip_rates(probabilities: Tensor, labels: Tensor, top_percent: float) -> Tensor:
    """r [n, C] float64; values of at most 0 never flip a row.

    Args:
        probabilities: Q [n, C], n >= 1.
        labels: [n] int64.
        top_percent: q, the share of rows in percent that exceed the threshold of a class.
    """
    seen, classes = probabilities.double(), probabilities.shape[1]
    scores = torch.zeros_like(seen)
    for label in labels.unique():
        own = labels == label
        rows = seen[own]
        scores[own] = (rows - rows.mean(dim=0)) / rows.std(dim=0, correction=0).clamp_min(_LEAST)
    at = len(labels) - 1 - int(top_percent * len(labels) / 100)
    thresholds = scores.sort(dim=0).values[max(at, 0)]
    of_class = rarity(torch.bincount(labels, minlength=classes))
    return torch.tanh(scores - thresholds) * (of_class - of_class[labels][:, None]).clamp_min(0)


def relabelled(rates: Tensor, labels: Tensor, uniforms: Tensor) -> Tensor:
    """The new labels [n] int64.

    Args:
        rates: r [n, C], see `flip_rates`; -inf for a class that no row may move to.
        labels: [n] int64.
        uniforms: u [n, C], in [0, 1).
    """
    drawn = torch.where(rates > uniforms, rates, -torch.inf)
    best, target = drawn.max(dim=1)
    return torch.where(best > 0, target, labels)
