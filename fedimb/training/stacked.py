"""Local training of many clients at once: one matrix product for all of them instead of one each.

On a small model a step spends more time in Python than in arithmetic. Here K clients' weights are stacked [K, *shape]
and their batches [K, b, *shape]; a step of all of them costs little more than a step of one. Clients are sorted by
their number of steps, so that those still training come first; batches shorter than b are padded with rows of weight 0.

Every client's result is independent of the others. The width b follows from its own rows and batch size, and the slices
of a batched product do not depend on each other, so the composition of a stack does not change any bit (tested).
Compared with the loop, batches of full width agree bit by bit in the products and up to rounding in the mean losses;
results equal the loop's within 1e-5 per round. Fedjax and pfl-research also stack by padding and masking.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedimb.models.base import Classifier, buffers_of
from fedimb.training.local import LocalResult, draw_epoch, labels_for
from fedimb.training.losses.base import RowLoss
from fedimb.training.optim import build_optimizer, decays
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked_step import StackedStep, stacked_loss

BUDGET = 256 * 1024**2
"""Bytes one stack may take; more clients are trained in several stacks, with the same result."""


def budget_of(device: torch.device) -> int:
    """Bytes that a stack may use on this device: half of a GPU's free memory; on a CPU what fits the caches."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else BUDGET


@dataclass(frozen=True)
class Work:
    """One client's local training; the arguments of `train_locally`."""

    x: Tensor
    y: Tensor
    spec: TrainSpec
    generator: torch.Generator
    primary: Tensor | None = None


Trained = tuple[LocalResult, list[Tensor]]
"""What `train_locally` returns, and the client's weights in the order of the model's trainable parameters."""


def why_spec_not_stackable(spec: TrainSpec) -> str | None:
    """Why this training cannot be stacked, or None; for the model see `why_model_not_stackable`."""
    if not isinstance(spec.loss, RowLoss) or len([*spec.loss.parameters(), *spec.loss.children()]):
        return f"the loss {type(spec.loss).__name__} is not a RowLoss, or has parameters or modules of its own"
    if not all(objective.stackable for objective in spec.objectives):
        name = next(type(objective).__name__ for objective in spec.objectives if not objective.stackable)
        return f"the local objective {name} is not stackable"
    if spec.max_grad_norm is not None:
        return "local.max_grad_norm bounds one client's gradient at a time"
    if spec.precision != "float32":
        return f"local.precision={spec.precision} trains one client at a time"
    if spec.augmentations:
        return "augmentations change one client's batch at a time"
    return None


def why_model_not_stackable(model: nn.Module) -> str | None:
    """Why this model cannot be stacked, or None."""
    if buffers_of(model):
        return "the model has buffers (BatchNorm): use model.norm=group"
    if any(isinstance(m, nn.modules.dropout._DropoutNd) for m in model.modules()):
        return "the model has dropout"
    return None


@dataclass(frozen=True)
class _Plan:
    """A client's batches: the rows of each epoch, and the width to which its batches are padded.

    The width depends only on this client, so that its result does not depend on others.
    """

    work: Work
    epochs: list[Tensor]
    width: int

    @staticmethod
    def of(work: Work) -> "_Plan":
        """The same draws as the loop's, epoch after epoch."""
        size, left, epochs = work.spec.batch_size, work.spec.steps, []
        while left > 0:
            classes = work.y if work.primary is None else work.primary
            labels = labels_for(work.spec.sampler, work.y, classes)
            epochs.append(draw_epoch(work.spec.sampler, labels, work.generator)[: left * size])
            left -= -(-len(epochs[-1]) // size)
        longest = max(len(order) for order in epochs)
        return _Plan(work, epochs, min(size, 1 << (longest - 1).bit_length()))

    def signature(self) -> tuple[object, ...]:
        """What all clients of one stack must have in common."""
        spec = self.work.spec
        parts = [(type(part), repr(sorted(_settings(part).items()))) for part in (spec.loss, *spec.objectives)]
        made = (spec.optimizer, spec.lr, spec.momentum, spec.nesterov, spec.weight_decay, spec.decay_exempt)
        return (self.width, spec.batch_size, *made, *parts)


def train_stacked(model: Classifier, works: Sequence[Work], budget: int = BUDGET) -> list[Trained]:
    """Train every client from the model's current weights, which do not change.

    Args:
        model: see `why_model_not_stackable`; dense models have a manual backward pass, others use torch.func.vmap
            (`stacked_step`).
        works: in any order; the results come in the same order.
        budget: bytes that a stack may use. If memory runs out, the stack is halved; the result stays the same.

    Raises:
        FedimbError: a sampler chose no row.
    """
    start = [p.detach() for p in model.parameters() if p.requires_grad]
    trained: dict[int, Trained] = {}
    groups: dict[tuple[Any, ...], list[tuple[int, _Plan]]] = {}
    for i, work in enumerate(works):
        if len(work.y) == 0 or work.spec.steps == 0:
            trained[i] = (LocalResult(steps=0, loss=float("nan"), examples=len(work.y)), [p.clone() for p in start])
        else:
            plan = _Plan.of(work)
            groups.setdefault(plan.signature(), []).append((i, plan))
    for members in groups.values():
        members.sort(key=lambda member: -member[1].work.spec.steps)
        plans = [plan for _, plan in members]
        for part in _parts(plans, start, budget):
            for (i, _), result in zip(members[part], _train(model, plans[part]), strict=True):
                trained[i] = result
    return [trained[i] for i in range(len(works))]


def _settings(part: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(part).items() if not k.startswith("_") and k != "training"}


def _parts(plans: Sequence[_Plan], start: Sequence[Tensor], budget: int) -> Iterator[slice]:
    """Split plans, sorted by steps, into stacks that fit the budget: weights, gradients and momentum, rows,
    schedule."""
    weights = 4 * sum(p.nbytes for p in start)
    first, used = 0, 0
    for i, plan in enumerate(plans):
        size = weights + plan.work.x.nbytes + 12 * plans[first].work.spec.steps * plan.width
        if i > first and used + size > budget:
            yield slice(first, i)
            first, used = i, 0
        used += size
    yield slice(first, len(plans))


def _train(model: Classifier, plans: Sequence[_Plan]) -> list[Trained]:
    try:
        return _train_stack(model, plans)
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if len(plans) == 1 or not _out_of_memory(error):
            raise
    half = len(plans) // 2
    return _train(model, plans[:half]) + _train(model, plans[half:])


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error)


def _train_stack(model: Classifier, plans: Sequence[_Plan]) -> list[Trained]:
    """Train one stack: plans of one signature, those with more steps first."""
    works, width = [plan.work for plan in plans], plans[0].width
    spec = works[0].spec
    x, y = torch.cat([w.x for w in works]), torch.cat([w.y for w in works])
    index, weight = _schedule(plans)
    labels = y[index]
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    weights = [p.detach().expand(len(works), *p.shape).clone() for p in model.parameters() if p.requires_grad]
    for objective in spec.objectives:
        objective.setup(model, weights)
    optimizer = build_optimizer(spec, weights, decays(model, spec.decay_exempt))
    step_of, losses = StackedStep(model, x, width), x.new_zeros(len(works), width)
    for steps, active in _segments([work.spec.steps for work in works]):
        leaves = [p[:active].detach() for p in weights]  # shares memory
        optimizer.narrow(leaves)
        loss = stacked_loss([cast(RowLoss, work.spec.loss) for work in works[:active]])
        gradient = step_of.of(dict(zip(names, leaves, strict=True)), loss)
        for step in steps:
            rows, gradients = gradient(index[step, :active], labels[step, :active], weight[step, :active])
            for objective in spec.objectives:
                objective.on_gradients(leaves, gradients)
            optimizer.step(gradients)
            losses[:active] += rows
    totals = losses.sum(1).tolist()
    return [
        (LocalResult(work.spec.steps, loss / work.spec.steps, len(work.y)), [p[k] for p in weights])
        for k, (work, loss) in enumerate(zip(works, totals, strict=True))
    ]


def _schedule(plans: Sequence[_Plan]) -> tuple[Tensor, Tensor]:
    """Every step's rows: index [steps, K, width] int64 into all clients' rows, and weights in the batch's mean."""
    size, shape = plans[0].work.spec.batch_size, (plans[0].work.spec.steps, len(plans), plans[0].width)
    at = plans[0].work.y.device
    index, weight = torch.zeros(shape, dtype=torch.int64, device=at), torch.zeros(shape, device=at)
    offset = 0
    for k, plan in enumerate(plans):
        step = 0
        for order in plan.epochs:
            full, rest = divmod(len(order), size)
            if full:
                index[step : step + full, k] = order[: full * size].view(full, size) + offset
                weight[step : step + full, k] = 1 / size
            if rest:
                index[step + full, k, :rest] = order[full * size :] + offset
                weight[step + full, k, :rest] = 1 / rest
            step += full + (rest > 0)
        offset += len(plan.work.y)
    return index, weight


def _segments(steps: Sequence[int]) -> Iterator[tuple[range, int]]:
    """Steps during which the same clients train: (their numbers, how many clients), from steps sorted downwards."""
    done = 0
    for active in range(len(steps), 0, -1):
        if steps[active - 1] > done:
            yield range(done, steps[active - 1]), active
            done = steps[active - 1]
