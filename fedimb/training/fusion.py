"""One head of all classes from heads whose owners know different classes: HeroCrystal's distillation, for classes.

HeroCrystal (arXiv 2605.02169) fuses detectors; this is its form for classification. Its rule for inconsistent
categories decides for each class whom to believe: nobody who does not annotate it; its only annotator; of several the
pivot, if all others confirm it.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import linear, log_softmax

NEVER = -1e9
"""Logit of a class that cannot be: exp of it is 0, and no difference of two is NaN, as it would be of infinities."""


@dataclass(frozen=True)
class Targets:
    """What a head of all classes is taught.

    Attributes:
        probabilities: [n, C], rows sum to 1; 0 for a class that no teacher annotates.
        weights: [n] in [0, 1]; 0: the row teaches nothing.
    """

    probabilities: Tensor
    weights: Tensor


def fused_logits(logits: Tensor, annotated: Tensor, pivot: int | None) -> Tensor:
    """Each class's logit from the teachers that annotate it: their mean, or the pivot's.

    Args:
        logits: [K, n, C] of K teachers.
        annotated: [K, C] bool.
        pivot: teacher that is believed where several annotate a class; where it does not annotate it itself, the first
            that does. None: their mean.

    Returns:
        [n, C]; `NEVER` for a class that nobody annotates.

    Example:
        >>> logits = torch.tensor([[[1.0, 9.0]], [[3.0, 5.0]]])  # two teachers, one row
        >>> fused_logits(logits, torch.tensor([[True, False], [True, True]]), None).tolist()
        [[2.0, 5.0]]
        >>> fused_logits(logits, torch.tensor([[True, False], [True, True]]), 0).tolist()
        [[1.0, 5.0]]
    """
    known = annotated.any(dim=0)
    if pivot is None:
        shares = annotated / annotated.sum(dim=0).clamp_min(1)
    else:
        shares = torch.zeros(annotated.shape)
        shares[_believed(annotated, pivot), torch.arange(annotated.shape[1])] = 1.0
    fused = (logits * shares.to(logits.dtype)[:, None]).sum(dim=0)
    return fused.masked_fill(~known, NEVER)


def _believed(annotated: Tensor, pivot: int) -> Tensor:
    """[C] int64: the pivot where it annotates the class, else the first teacher that does."""
    first = annotated.int().argmax(dim=0)
    return torch.where(annotated[pivot], torch.full_like(first, pivot), first)


def confirmed(logits: Tensor, annotated: Tensor, fused: Tensor) -> Tensor:
    """[n] bool: whether every teacher that annotates the class a row is said to be says so too.

    A teacher says the class of its largest logit among those it annotates. Of a class with one annotator, or none,
    nothing else is asked.
    """
    said = logits.masked_fill(~annotated[:, None], NEVER).argmax(dim=2)  # [K, n]
    claim = fused.argmax(dim=1)
    asked = annotated[:, claim]  # [K, n]
    return ((said == claim) | ~asked).all(dim=0)


def targets_of(
    logits: Tensor,
    annotated: Tensor,
    pivot: int | None = None,
    agreement: bool = True,
    sharpening: float = 0.25,
    entropy: float = 0.5,
    min_score: float = 0.1,
) -> Targets:
    """What K teachers teach a head of all classes about n rows.

    Args:
        logits: [K, n, C].
        annotated: [K, C] bool.
        pivot: see `fused_logits`.
        agreement: leave out rows whose class not every annotator of it confirms (`confirmed`).
        sharpening: temperature of the taught distribution, > 0; 1: as the teachers say.
        entropy: a row weighs (1 - H / H_max)^entropy by the entropy of what is taught; 0: all rows alike.
        min_score: rows whose largest probability, before sharpening, is at most this teach nothing.
    """
    fused = fused_logits(logits, annotated, pivot)
    found = targets_from(fused, annotated.any(dim=0), sharpening, entropy, min_score)
    if not agreement:
        return found
    return replace(found, weights=torch.where(confirmed(logits, annotated, fused), found.weights, 0.0))


def targets_from(fused: Tensor, known: Tensor, sharpening: float, entropy: float, min_score: float) -> Targets:
    """What fused logits [n, C] teach; see `targets_of`.

    Args:
        known: [C] bool, classes that somebody annotates.
    """
    logs = log_softmax(fused.double() / sharpening, dim=1)
    probabilities = logs.exp()
    classes = int(known.sum())
    weights = torch.ones(len(fused), dtype=torch.float64)
    if entropy and classes > 1:
        h = -(probabilities * logs.clamp_min(NEVER)).sum(dim=1)
        weights = (1 - h / torch.log(torch.tensor(float(classes), dtype=torch.float64))).clamp(0, 1) ** entropy
    weights = torch.where(fused.double().softmax(dim=1).amax(dim=1) > min_score, weights, 0.0)
    return Targets(probabilities.to(fused.dtype), weights.to(fused.dtype))


def fused_head(weights: Tensor, biases: Tensor, annotated: Tensor, pivot: int | None) -> tuple[Tensor, Tensor]:
    """The linear head whose logits are `fused_logits` of heads over the same features.

    Args:
        weights: [K, C, d].
        biases: [K, C].

    Returns:
        weight [C, d] and bias [C]; 0 and `NEVER` for a class that nobody annotates, so that it is never predicted.
    """
    known = annotated.any(dim=0)
    columns = torch.cat([weights, biases[..., None]], dim=2).transpose(1, 2)  # [K, d + 1, C], d + 1 as rows
    fused = fused_logits(columns, annotated, pivot).T
    return fused[:, :-1].masked_fill(~known[:, None], 0.0).contiguous(), fused[:, -1].contiguous()


def distil_head(
    weight: Tensor,
    bias: Tensor,
    features: Tensor,
    targets: Targets,
    generator: torch.Generator,
    epochs: int,
    lr: float,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """A linear head after SGD on the weighted cross-entropy to soft targets; the features stay as they are.

    Args:
        weight, bias: [C, d] and [C] to start from.
        features: [n, d].
        targets: of these rows; a batch's loss is the sum of the rows' losses times weights over the sum of weights.
        generator: order of the rows.
        epochs: 0: the head as it is.
        lr: learning rate, of features scaled to length 1 on average.
        batch_size: rows of a step.
    """
    kept = torch.nonzero(targets.weights > 0).ravel()
    weight, bias = weight.clone(), bias.clone()
    if not len(kept):
        return weight, bias
    scale = features[kept].norm(dim=1).mean().clamp_min(1e-12)
    known = bias > NEVER / 2
    for _ in range(epochs):
        order = kept[torch.randperm(len(kept), generator=generator)]
        for rows in order.split(batch_size):
            x, w = features[rows], targets.weights[rows]
            slope = linear(x, weight, bias).softmax(dim=1) - targets.probabilities[rows]
            slope = slope * (w / w.sum())[:, None] * known
            weight -= lr / scale**2 * (slope.T @ x)
            bias -= lr * slope.sum(dim=0)
    return weight, bias
