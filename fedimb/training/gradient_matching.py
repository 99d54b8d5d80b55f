"""Features at the server whose head gradients match the clients': CReFF's federated features, and a head fitted to
them.

Shang et al., "Federated Learning on Heterogeneous and Long-Tailed Data via Classifier Re-Training with Federated
Features", IJCAI 2022. With a head (V, v), the gradient of a class's mean cross-entropy has a closed form: for
features H of the class c, G_c = mean_i (softmax(V h_i + v) - e_c) h_i' and g_c = mean_i (softmax(V h_i + v) - e_c).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_LEAST = 1e-6

Gradient = tuple[Tensor, Tensor]
"""Of the head's weight [..., C, d] and bias [..., C]."""


def head_gradient(features: Tensor, label: int, weight: Tensor, bias: Tensor) -> Gradient:
    """Gradient of the mean cross-entropy of rows of one class in the head.

    Args:
        features: [n, d], n >= 1.
        label: the class.
        weight, bias: the head, [C, d] and [C].
    """
    slope = (features @ weight.T + bias).softmax(1)
    slope = slope - nn.functional.one_hot(torch.tensor(label), len(bias)).to(slope)
    return slope.T @ features / len(features), slope.mean(dim=0)


def class_gradients(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, min_count: int = 1
) -> tuple[Gradient, Tensor]:
    """`head_gradient` of every class: [C, C, d] and [C, C], and [C] bool: classes of at least ``min_count`` rows.

    The gradient of another class is 0.
    """
    classes = len(bias)
    held = torch.bincount(labels, minlength=classes) >= max(min_count, 1)
    of_weight, of_bias = features.new_zeros(classes, *weight.shape), features.new_zeros(classes, classes)
    for label in held.nonzero().flatten().tolist():
        of_weight[label], of_bias[label] = head_gradient(features[labels == label], label, weight, bias)
    return (of_weight, of_bias), held


def mismatch(found: Gradient, wanted: Gradient) -> Tensor:
    """1 - cosine of the two gradients, summed over the head's rows and its bias: a scalar in [0, 2 (C + 1)]."""
    pairs = zip((*found[0], found[1]), (*wanted[0], wanted[1]), strict=True)
    return torch.stack([1 - _cosine(one, other) for one, other in pairs]).sum()


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum() / (one.norm() * other.norm() + _LEAST)


def match_gradients(features: Tensor, wanted: Gradient, held: Tensor, head: Gradient, steps: int, lr: float) -> Tensor:
    """New features [C, m, d] after gradient steps on the classes' summed mismatch; a class that is not held keeps its
    own.

    Args:
        features: [C, m, d], m per class.
        wanted: mean gradients of the classes, [C, C, d] and [C, C].
        held: [C] bool, the classes that have a gradient.
        head: weight [C, d] and bias [C] under which the gradients were computed.
        steps: gradient steps.
        lr: learning rate.
    """
    made = features.clone()
    for label in held.nonzero().flatten().tolist():
        rows, aim = made[label].clone().requires_grad_(), (wanted[0][label], wanted[1][label])
        for _ in range(steps):
            with torch.enable_grad():
                loss = mismatch(head_gradient(rows, label, *head), aim)
                (slope,) = torch.autograd.grad(loss, rows)
            rows = (rows.detach() - lr * slope).requires_grad_()
        made[label] = rows.detach()
    return made


def fit_head(head: Gradient, features: Tensor, batches: list[Tensor], lr: float) -> Gradient:
    """The head after one step of SGD per batch on the mean cross-entropy of the features [C, m, d].

    Args:
        head: weight [C, d] and bias [C] at the start; not changed.
        batches: positions [b] among the C m features, class after class.
        lr: learning rate.
    """
    rows = features.flatten(0, 1)
    labels = torch.arange(len(features)).repeat_interleave(features.shape[1])
    weight, bias = (part.clone().requires_grad_() for part in head)
    with torch.enable_grad():
        for batch in batches:
            loss = cross_entropy(rows[batch] @ weight.T + bias, labels[batch])
            slopes = torch.autograd.grad(loss, (weight, bias))
            with torch.no_grad():
                weight -= lr * slopes[0]
                bias -= lr * slopes[1]
    return weight.detach(), bias.detach()


def drawn_head(classes: int, width: int, generator: torch.Generator) -> Gradient:
    """A linear head as torch draws it: uniform within 1 / sqrt(d), weight [C, d] and bias [C]."""
    bound = width**-0.5
    shapes = (classes, width), (classes,)
    weight, bias = (bound * (2 * torch.rand(shape, generator=generator) - 1) for shape in shapes)
    return weight, bias
