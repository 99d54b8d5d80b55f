"""The last layer of every model: linear (with or without a bias or a projector), cosine, or quadratic in features."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedimb.errors import ConfigError

Head = Literal[
    "linear", "cosine", "bias_free", "prototype", "etf", "projected", "quadratic", "diagonal", "simplex", "npe", "gated"
]


OWN_HEAD = {
    ("head", "cosine"): {"own_head": "a cosine head"},
    ("head", "prototype"): {"own_head": "class prototypes as head", "head_kind": "prototype"},
    ("head", "etf"): {"own_head": "a fixed simplex as head"},
    ("head", "projected"): {"head_kind": "projected"},
    ("head", "quadratic"): {"own_head": "a quadratic head"},
    ("head", "diagonal"): {"own_head": "a quadratic head"},
    ("head", "simplex"): {
        "own_head": "distances to a fixed simplex as head",
        "head_kind": "simplex",
        "needs_loss": ("dm_simplex",),
        "no_posterior": "logits that are squared distances",
    },
    ("head", "gated"): {
        "own_head": "a head with a gate",
        "head_kind": "gated",
        "no_posterior": "a gate that lowers logits by 10,000",
    },
    ("head", "npe"): {
        "own_head": "a head that adds its estimate of the prior",
        "head_kind": "npe",
        "needs_objective": "prior_estimator",
    },
}
"""For ``when`` of a model: what its head is where logits are not features times weight plus bias, its kind where a
method needs that, and why no temperature makes a posterior of its logits, if none does."""


class CosineHead(nn.Linear):
    """Logits = scale x cosine of class row and feature; no bias. The length of a class row has no influence.

    With a long tail the rows of frequent classes become long, and these classes win for that reason alone. See Gidaris
    and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018 (there the scale is learned, here it
    is fixed).

    Gradients of the features are scale / |feature| times those of a linear head: use a smaller learning rate. At 0.03
    cnn4conv (width 32, 8 x 8 digits) stays at chance for 250 steps of SGD, where a linear head learns.

    Args:
        in_features: feature width d.
        out_features: number of classes C.
        scale: largest possible logit; with 16 and 10 orthogonal class rows softmax reaches 1 within 1e-6.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 16.0) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def reset_parameters(self) -> None:
        """Rows N(0, 1): a step rotates a row by lr * scale / |row|^2, too much for the short rows of nn.Linear."""
        nn.init.normal_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, d] -> logits [n, C] in [-scale, scale]; a feature of zeros scores 0 everywhere."""
        return self.scale * F.linear(unit(features), unit(self.weight))


class PrototypeHead(nn.Linear):
    """Logits = s x cosine of class row and feature, s learned; no bias.

    The rows are class prototypes of length 1, orthogonal at first where the width allows. FedNH (Dai et al., AAAI 2023)
    moves them at the server and freezes them at the clients (`fedimb.strategies.fednh`).

    Args:
        in_features: feature width d.
        out_features: number of classes C.
        scale: s at first; 1 for the small network of the paper, 20 for its ResNets.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 20.0) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = nn.Parameter(torch.full((1,), scale))

    def reset_parameters(self) -> None:
        """Rows of an orthogonal matrix, scaled to length 1: with more classes than features they are shorter."""
        nn.init.orthogonal_(self.weight)
        with torch.no_grad():
            self.weight.copy_(unit(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, d] -> logits [n, C] in [-s, s]; a feature of zeros scores 0 everywhere."""
        return self.scale * F.linear(unit(features), unit(self.weight))


class EquiangularHead(nn.Linear):
    """Logits = s M'unit(A h): a trained projection A and scale s in front of a fixed simplex M, whose columns have
    length 1 and the cosine -1 / (C - 1) to each other.

    Li et al., "No Fear of Classifier Biases: Neural Collapse Inspired Federated Learning with Synthetic and Fixed
    Classifier" (FedETF), ICCV 2023, with ``loss=local_balanced_softmax``. M is drawn from its sizes alone, so every
    party makes the same, and so does whoever loads the model later; it is never sent. The paper evaluates without s,
    which changes no prediction.

    Args:
        in_features: feature width d; the projection has max(d, C) outputs, since M needs at least C rows.
        out_features: number of classes C, at least 2.
        scale: s at first.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = 10.0) -> None:
        super().__init__(in_features, out_features, bias=False)
        inner = max(in_features, out_features)
        self.projection = nn.Linear(in_features, inner)
        self.scale = nn.Parameter(torch.full((1,), scale))
        own = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(inner, out_features, dtype=torch.float64, generator=own))[0]
        self.weight = nn.Parameter(equiangular(basis).T.float(), requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, d] -> logits [n, C] in [-s, s]."""
        return self.scale * F.linear(unit(self.projection(features)), self.weight)


def equiangular(basis: Tensor) -> Tensor:
    """Orthonormal columns P [p, C] -> sqrt(C / (C - 1)) P (I - 11'/C) [p, C], a simplex equiangular tight frame."""
    classes = basis.shape[1]
    return (classes / (classes - 1)) ** 0.5 * (basis - basis.mean(dim=1, keepdim=True))


class SimplexHead(nn.Linear):
    """Logits = -|A h + b - s_c|^2: a trained projection to C - 1 numbers, and their squared distances to the C vertices
    s_c of a fixed simplex around 0.

    Cevikalp et al., "Deep Simplex Classifier", ICPR 2024, for ``loss=dm_simplex``. C points at equal distances need
    C - 1 dimensions. The vertices follow from C alone, so every party makes the same, and so does whoever loads the
    model later; they are never sent. Predictions are those of the nearest vertex; softmax of these logits is no
    probability to rely on.

    Args:
        in_features: feature width d.
        out_features: number of classes C.
        radius: distance of the vertices from 0; 100 in the code of LA-DMDSC, whose margins are meant for it.
    """

    def __init__(self, in_features: int, out_features: int, radius: float = 100.0) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.projection = nn.Linear(in_features, max(out_features - 1, 1))
        vertices = (radius * simplex(out_features)).float()
        self.weight = nn.Parameter(vertices, requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, d] -> logits [n, C], at most 0."""
        return -(self.projection(features)[..., None, :] - self.weight).square().sum(-1)


def simplex(classes: int) -> Tensor:
    """[C, C - 1] float64: C points of length 1, all at the same distance from each other; [1, 1] for one class.

    Example:
        >>> simplex(2).flatten().tolist()
        [1.0, -1.0]
    """
    if classes == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    step = torch.arange(1, classes, dtype=torch.float64)
    # Helmert's orthonormal columns, orthogonal to (1, ..., 1): the k-th is (1, ..., 1, -k, 0, ...) / sqrt(k (k + 1))
    columns = torch.ones(classes, classes - 1, dtype=torch.float64).triu() - torch.diag(step, -1)[:, :-1]
    return columns / (step * (step + 1)).sqrt() * (classes / (classes - 1)) ** 0.5


def open_set_score(logits: Tensor) -> Tensor:
    """Logits -d^2 of a `SimplexHead` [..., C] -> 1 / (1 + d^2) of the nearest vertex [...], in (0, 1]; near 0 for a row
    that is far from every class, which may be of none of them."""
    return 1 / (1 - logits.amax(-1).clamp_max(0))


class NeuralPriorHead(nn.Linear):
    """Logits = w_c'x + b_c in training; in evaluation plus h_c(x) - mean_c h_c(x), h a second linear layer that learns
    the class prior.

    "Neural Prior Estimator", arXiv 2602.17853, with the local objective `prior_estimator`. The paper averages K such
    layers; linear layers with a convex loss all go to the same place, so there is one here. It starts at 0, which
    corrects nothing.

    Args:
        in_features: feature width d.
        out_features: number of classes C.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.estimator = nn.Linear(in_features, out_features)
        nn.init.zeros_(self.estimator.weight)
        nn.init.zeros_(self.estimator.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, d] -> logits [n, C]."""
        logits = F.linear(features, self.weight, self.bias)
        if self.training:
            return logits
        estimate = self.estimator(features)
        return logits + estimate - estimate.mean(dim=-1, keepdim=True)


class BiasFreeHead(nn.Linear):
    """Logits = w_c'x, for losses that scale logits in training only: a bias learnt under the scale would be used
    without.

    Args:
        in_features: feature width d.
        out_features: number of classes C.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)


class ProjectedHead(nn.Linear):
    """A linear head with a projector beside it, which methods that compare features train and send with the model.

    FedIIC (Wu et al., MICCAI 2023) contrasts projections of features and of the head's rows. Logits do not depend on
    the projector; its output has the width max(d, C).

    Args:
        in_features: feature width d.
        out_features: number of classes C.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        inner = max(in_features, out_features)
        layers = nn.Linear(in_features, in_features), nn.ReLU(), nn.Linear(in_features, inner)
        self.projector = nn.Sequential(*layers)


class QuadraticHead(nn.Linear):
    """Logits = w_c'x + b_c - x'K_c x / 2, with a matrix K_c per class: the boundary of Gaussians of unequal covariance.

    K is 0 at first, which is a linear head. Computed in float64: the terms are much larger than their difference.

    Args:
        in_features: feature width d.
        out_features: number of classes C.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.precision = nn.Parameter(torch.zeros(self._size()))

    def _size(self) -> tuple[int, ...]:
        return (self.out_features, self.in_features, self.in_features)

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, d] -> logits [n, C]."""
        x = features.double()
        linear = F.linear(x, self.weight.double(), self.bias.double())
        return (linear - self._squared(x) / 2).to(features.dtype)

    def _squared(self, x: Tensor) -> Tensor:
        """x'K_c x [n, C], float64."""
        turned = torch.einsum("nd,cde->nce", x, self.precision.double())
        return (turned * x[:, None]).sum(dim=2)


class DiagonalHead(QuadraticHead):
    """A quadratic head whose matrices are diagonal, [C, d]: the boundary of independent Gaussians."""

    def _size(self) -> tuple[int, ...]:
        return (self.out_features, self.in_features)

    def _squared(self, x: Tensor) -> Tensor:
        return F.linear(x.square(), self.precision.double())


class GatedHead(nn.Linear):
    """Logits = w_c'x + b_c, and lower by `GATED` for a class from which the feature lies too far.

    A feature lies too far from class c if |R'(x - m_c)|^2 > r_c, its squared Mahalanobis distance to the class's mean.
    If that is the predicted class, the prediction is the next class that it is near enough to; a feature that is near
    to none keeps its logits. A class with r_c = `NEVER_FAR` has no gate: nothing is known to be near to it, so it keeps
    the rows that are predicted as it and gets none from a class that is too far. Logits lowered by `GATED` are a hard
    decision: softmax of them is no probability to rely on. m, R and r are 0 until ``strategy=mahalanobis`` sets them
    after training (`fedimb.strategies.mahalanobis`), which gates nothing; they are sent with the model, and training
    leaves them as they are.

    Args:
        in_features: feature width d.
        out_features: number of classes C.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.means = nn.Parameter(torch.zeros(out_features, in_features))
        self.root = nn.Parameter(torch.zeros(in_features, in_features))
        self.reach = nn.Parameter(torch.zeros(out_features))

    def forward(self, features: Tensor) -> Tensor:
        """Features [n, d] -> logits [n, C]."""
        logits = F.linear(features, self.weight, self.bias)
        if self.training:  # a gradient of 0, so that optimisers and aggregators find one
            return logits + sum((0 * own).sum() for own in (self.means, self.root, self.reach))  # dense, not expanded
        gated = self.reach < NEVER_FAR
        near = gated & (self.distances(features) <= self.reach)
        first = logits.argmax(-1, keepdim=True)
        moves = (gated & ~near).gather(-1, first)  # only to where a row is near: not to a class without a gate
        lowered = near.any(-1, keepdim=True) & ~near & (gated | moves)
        return logits - GATED * lowered.to(logits.dtype)

    def distances(self, features: Tensor) -> Tensor:
        """Features [n, d] -> squared Mahalanobis distances to the classes' means [n, C]."""
        turned, centres = features @ self.root, self.means @ self.root
        squares = (turned * turned).sum(-1, keepdim=True) + (centres * centres).sum(-1)
        return (squares - 2 * turned @ centres.T).clamp_min(0)


GATED = 1e4
"""What a `GatedHead` takes off the logit of a class that is too far: more than any logit, and finite."""
NEVER_FAR = 1e30
"""Limit of a class without a gate in a `GatedHead`: finite, since weights that are not are refused."""


def unit(rows: Tensor) -> Tensor:
    """Rows [..., d] of length 1. 1e-6 rather than torch's 1e-12, which would give a zero row gradients of 1e12."""
    return F.normalize(rows, dim=-1, eps=1e-6)


def build_head(kind: Head, width: int, n_classes: int) -> nn.Linear:
    """The head of a model whose features are [n, width].

    Raises:
        ConfigError: an unknown kind.
    """
    made = {
        "linear": nn.Linear,
        "cosine": CosineHead,
        "bias_free": BiasFreeHead,
        "prototype": PrototypeHead,
        "etf": EquiangularHead,
        "projected": ProjectedHead,
        "quadratic": QuadraticHead,
        "diagonal": DiagonalHead,
        "simplex": SimplexHead,
        "npe": NeuralPriorHead,
        "gated": GatedHead,
    }
    if kind not in made:
        raise ConfigError(f"model: head='{kind}': give one of {', '.join(made)}")
    return made[kind](width, n_classes)
