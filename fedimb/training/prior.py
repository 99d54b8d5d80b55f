"""Class priors from counts: one rule for every consumer (losses and post-hoc calibration)."""

import numpy as np
import torch
from torch import Tensor


def class_prior(counts: np.ndarray) -> np.ndarray:
    """Counts [C] (any real dtype) -> probabilities [C] float64 summing to 1.

    Before normalising, a class without rows gets the share of the rarest class with rows: with a prior of 0, post-hoc
    adjustment would always predict that class.

    Raises:
        ValueError: a negative or non-finite count, or no row at all.

    Example:
        >>> class_prior(np.array([6, 3, 1, 0])).round(3).tolist()
        [0.545, 0.273, 0.091, 0.091]
    """
    counts = np.asarray(counts, dtype=np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
        raise ValueError(f"class counts must be finite, not negative and not all zero; got {counts.tolist()}")
    filled = np.where(counts > 0, counts, counts[counts > 0].min())
    prior: np.ndarray = filled / filled.sum()
    return prior


def prior_of_head(weight: np.ndarray) -> np.ndarray:
    """Head rows [C, d] -> probabilities [C] float64: the softmax of the rows' L2 norms.

    The direct prior analyzer of Xiao et al., "Fed-GraB", NeurIPS 2023: frequent classes get longer head rows. Norms
    near 1 give a prior flatter than the data's: it ranks the classes rather than counting them.
    """
    norms = np.linalg.norm(np.asarray(weight, dtype=np.float64), axis=1)
    shares = np.exp(norms - norms.max())
    prior: np.ndarray = shares / shares.sum()
    return prior


def log_prior(counts: np.ndarray) -> Tensor:
    """Log of `class_prior` as a float32 tensor [C]."""
    return torch.from_numpy(np.log(class_prior(counts))).to(torch.float32)
