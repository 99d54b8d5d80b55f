"""Every method of `reference/*.json` gives the published equation's values: each file was computed from the release it
names and once more by an independent implementation.

Files are compared in float64 at their own tolerance; parts that compute in float32 are compared at 1e-5 absolute.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedimb.clients.fednh import class_prototypes
from fedimb.clients.rucr import feature_sums, mixtures
from fedimb.engine.lanes import gather
from fedimb.models.base import Classifier
from fedimb.models.heads import EquiangularHead, PrototypeHead, equiangular
from fedimb.records import array_record
from fedimb.serverapp.aggregator import Aggregator
from fedimb.strategies.climb import WeightedSum, dual_step, multipliers
from fedimb.strategies.creff import mean_gradients
from fedimb.strategies.fednh import moved_prototypes
from fedimb.strategies.rucr import unified
from fedimb.testing.aggregators import reduction_of
from fedimb.training.augmentations.two_views import TwoViews
from fedimb.training.calibrations.base import Outputs
from fedimb.training.calibrations.fednpc import fit
from fedimb.training.calibrations.gla_fr import GlobalAlignment
from fedimb.training.calibrations.tau import TauNormalisation
from fedimb.training.contrast import difficulty_shift, inter_contrast, intra_contrast, spread_apart
from fedimb.training.effective_numbers import effective_numbers, shares_of
from fedimb.training.gradient_matching import class_gradients, fit_head, head_gradient, match_gradients, mismatch
from fedimb.training.losses.ala import AdaptiveLogitAdjustment
from fedimb.training.losses.base import AdjustedCrossEntropy, targets_of
from fedimb.training.losses.batch_restricted_ce import BatchRestrictedCrossEntropy
from fedimb.training.losses.bce import BinaryCrossEntropy
from fedimb.training.losses.dla import DistributionAwareAdjustment
from fedimb.training.losses.fedrs import FedRS
from fedimb.training.losses.fedvls import FedVLS
from fedimb.training.losses.local_balanced_softmax import LocalBalancedSoftmax, log_shares
from fedimb.training.objectives.decorrelate import Decorrelate
from fedimb.training.objectives.distil import Distil
from fedimb.training.objectives.feature_noise import noise_probability, pooled_covariance
from fedimb.training.objectives.gradient_balancer import Controllers, gain
from fedimb.training.objectives.inherit import Inherit
from fedimb.training.objectives.not_true_distil import NotTrueDistillation
from fedimb.training.objectives.self_distil import SelfDistillation, distillation
from fedimb.training.objectives.unified_contrast import UnifiedContrast
from fedimb.training.prior import prior_of_head
from fedimb.training.relabelling import flip_rates, rarity, relabelled

FOLDER = Path(__file__).parent / "reference"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
FLOAT32 = 1e-5

ELSEWHERE = {
    "feddyn": "tests/aggregators/test_server_optimizer.py",
    "fedexp": "tests/aggregators/test_server_optimizer.py",
    "fednova": "tests/aggregators/test_server_optimizer.py",
}
"""Files that the tests of their part read, which must exist and name them."""

NOT_BUILT = {
    "fedloge": "the sparse fixed head and the personal head; its global alignment is the calibration gla_fr, below",
}
"""Methods that fedimb does not have yet, and why. A name leaves this list with its method."""

CHECKS = {}


def check(function):
    """Register a check under the name of its file; it gets the file's inputs, outputs and tolerance."""
    CHECKS[function.__name__] = function
    return function


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def near(found, right, tolerance):
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    np.testing.assert_allclose(found, np.array(right), rtol=0, atol=tolerance)


def loss_and_gradient(loss, logits, labels):
    """A loss, or a function of logits and labels, in float64: its value and its gradient in the logits."""
    leaf = tensor(logits).requires_grad_()
    value = loss(leaf, torch.tensor(labels))
    return value, torch.autograd.grad(value, leaf)[0]


def near_both(loss, logits, labels, value, gradient, tolerance):
    found = loss_and_gradient(loss, logits, labels)
    near(found[0], value, tolerance)
    near(found[1], gradient, tolerance)


class Constant(nn.Module):
    """A received model whose logits are given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(tensor(logits))

    def forward(self, inputs):
        return self.logits


def term(objective, teacher, rows):
    """An objective's loss as a function of logits and labels, the received model's logits given."""
    received = Constant(teacher)
    objective.on_rows(torch.tensor(rows))
    objective.setup(received, list(received.parameters()))
    objective.on_batch(torch.zeros(len(teacher), 1))

    def loss(logits, labels):
        value = objective.loss(received, torch.zeros(len(logits), 1), logits, labels)
        return logits.sum() * 0 if value is None else value

    return loss


@check
def fedrs(given, right, tolerance):
    rows = given["logits"], given["labels"]
    held = FedRS(5, given["alpha"], local_counts=np.array(given["local_counts"]))
    near_both(held, *rows, right["loss"], right["gradient"], FLOAT32)
    proportional = AdaptiveLogitAdjustment(5, given["alpha"], np.array(given["local_counts"]))
    near_both(proportional, *rows, right["loss_proportional"], right["gradient_proportional"], FLOAT32)


@check
def fedlf(given, right, tolerance):
    loss = AdaptiveLogitAdjustment(5, given["alpha"], np.array(given["local_counts"]))
    near(loss.factor, right["factor"], FLOAT32)
    logits = tensor(given["features"]) @ tensor(given["head_weight"]).T
    near_both(loss, logits.tolist(), given["labels"], right["loss"], right["gradient_in_logits"], FLOAT32)
    decorrelate = Decorrelate(1.0)

    def penalty(features, labels):
        return decorrelate.loss(None, features, features, labels)

    expected = right["decorrelation"], right["decorrelation_gradient"]
    near_both(penalty, given["features"], given["labels"], *expected, tolerance)


@check
def fedrod(given, right, tolerance):
    for absent, key in (("floor", ""), ("floor", "_masked"), ("one", "_absent_as_one")):
        loss = LocalBalancedSoftmax(5, absent, np.array(given["local_counts"]))
        expected = right[f"generic_loss{key}"], right[f"generic_gradient{key}"]
        near_both(loss, given["logits"], given["labels"], *expected, FLOAT32)


@check
def fedrela(given, right, tolerance):
    labels = torch.tensor(given["labels"])
    near(rarity(torch.bincount(labels, minlength=5)), right["priors"], tolerance)
    rates = flip_rates(tensor(given["posteriors"]), labels, given["top_percent"])
    near(rates, right["flip_rates"], tolerance)
    new = relabelled(rates, labels, tensor(given["uniforms"]))
    assert new.tolist() == right["new_labels"]
    assert int((new != labels).sum()) == right["relabelled"]


@check
def rucr(given, right, tolerance):
    clients = [(tensor(given[f"features_client{k}"]), torch.tensor(given[f"labels_client{k}"])) for k in (1, 2)]
    found = [tuple(part.numpy() for part in feature_sums(*rows, 5)) for rows in clients]
    prototypes, directions = unified(found), unified(found, directions=True)
    near(prototypes, right["prototypes"], tolerance)
    near(directions, right["norm_prototypes"], tolerance)
    counts = tensor(sum(counts for _, counts in found))
    contrast = UnifiedContrast(tensor(prototypes), counts, given["ratio_weight"], given["temperature"])
    contrast.on_rows(clients[0][1])

    def loss(features, labels):
        return contrast.loss(None, features, features, labels)

    rows = given["features_client1"], given["labels_client1"]
    near_both(loss, *rows, right["contrastive_loss"], right["gradient_in_features"], tolerance)
    row = clients[0][0][given["mix_row_of_client1"]].expand(5, 1, -1)
    mixed = mixtures(tensor(directions), row, torch.full((5, 1), given["mix_lambda"], dtype=torch.float64))
    near(mixed[given["mix_class"], 0], right["mixed_feature"], tolerance)


class Identity(nn.Module):
    """A classifier whose inputs are the logits."""

    def __init__(self):
        super().__init__()
        self.head = nn.Identity()

    def features(self, inputs):
        return inputs


@check
def fedyoyo(given, right, tolerance):
    found = []
    for k in (1, 2):
        rows = tensor(given[f"features_client{k}"]), torch.tensor(given[f"labels_client{k}"])
        found.append(effective_numbers(*rows, 5, len(rows[1])).numpy())
        np.testing.assert_allclose(found[-1], right[f"effective_client{k}"], rtol=tolerance)
    shares = shares_of(found[0] + found[1])
    shares = shares / shares.sum()
    near(shares, right["prior"], tolerance)
    loss = DistributionAwareAdjustment(5, given["gamma"], given["tau"], shares, np.array(given["local_counts"]))
    views = TwoViews((), ())
    views.other = strong = tensor(given["strong_logits"]).requires_grad_()
    weak, labels = tensor(given["weak_logits"]).requires_grad_(), torch.tensor(given["labels"])
    near((loss(weak, labels) + loss(strong, labels)) / 2, right["cross_entropy"], FLOAT32)
    taught, rows = distillation(loss.adjusted(weak), loss.adjusted(strong), labels, given["temperature"])
    near(taught, right["distillation"], FLOAT32)
    assert rows.tolist() == right["distilled_rows"]
    weight = given["lamda"] * min(given["round"] / given["warmup"], 1)
    distil = SelfDistillation(views, loss, weight, given["temperature"])
    model = type("Rows", (Identity, Classifier), {})()
    total = loss(weak, labels) + distil.loss(model, weak, weak, labels)
    near(total, right["total"], FLOAT32)
    near(torch.cat(torch.autograd.grad(total, (weak, strong))), right["gradient"], FLOAT32)


@check
def fediic(given, right, tolerance):
    for key, which in (("counts_all_held", ""), ("local_counts", "_absent")):
        logs = torch.from_numpy(log_shares(np.array(given[key], float), "floor"))
        shift = difficulty_shift(logs, tensor(given["class_losses"]), given["d_exponent"])
        loss = AdjustedCrossEntropy(shift)
        wanted = right[f"dala_loss{which}"], right[f"dala_gradient{which}"]
        near_both(loss, given["logits"], given["labels"], *wanted, FLOAT32 if which else tolerance)
    shares = logs.exp()

    def intra(views, labels):
        return intra_contrast(views, labels, shares, given["intra_floor"])

    start = tensor(given["prototypes_start"])

    def inter(views, labels):
        return inter_contrast(views, labels, nn.functional.normalize(start, dim=1), given["inter_temperature"])

    for name, part in (("intra", intra), ("inter", inter)):
        wanted = right[f"{name}_loss"], right[f"{name}_gradient"]
        near_both(part, given["views"], given["labels"], *wanted, tolerance)
    near(spread_apart(start, 5, 0.1), right["prototypes_after_5_steps"], tolerance)


@check
def fedvls(given, right, tolerance):
    for case in ("two_vacant", "one_vacant"):
        labels, counts, wanted = given[f"labels_{case}"], given[f"counts_{case}"], right[case]
        loss = FedVLS(5, given["suppression_weight"], np.array(counts))
        vacant = term(Distil(0.1, 1.0, absent_only=True), given["teacher_logits"], labels)
        parts = (
            ("prior_ce", lambda z, y, loss=loss: loss.parts(z, y)[0], 1.0),
            ("suppression", lambda z, y, loss=loss: loss.suppression * loss.parts(z, y)[1], 1.0),
            ("vacant_distillation", vacant, 0.1),
        )
        for name, part, scale in parts:
            value, gradient = loss_and_gradient(part, given["logits"], labels)
            near(value / scale, wanted[name], FLOAT32)
            near(gradient / scale, wanted[f"{name}_gradient"], FLOAT32)
        total = loss(tensor(given["logits"]), torch.tensor(labels)) + vacant(tensor(given["logits"]), None)
        near(total, wanted["total_lambda_0.1"], FLOAT32)


@check
def fedntd(given, right, tolerance):
    for tau in (1, 3):
        loss = term(NotTrueDistillation(given["beta"], tau), given["teacher_logits"], given["labels"])
        wanted = right[f"tau_{tau}"]

        def total(logits, labels, loss=loss):
            return nn.functional.cross_entropy(logits, labels) + loss(logits, labels)

        near_both(total, given["logits"], given["labels"], wanted["total"], wanted["gradient"], tolerance)
        near(loss(tensor(given["logits"]), torch.tensor(given["labels"])), wanted["distillation"], tolerance)


@check
def fednpc(given, right, tolerance):
    batches = zip(tensor(given["noise_features"]), torch.tensor(given["noise_labels"]), strict=True)
    start = tensor(given["head_weight"]), tensor(given["head_bias"])
    weight, bias = fit(start, batches, given["lr"], given["momentum"])
    near(weight, right["head_weight"], tolerance)
    near(bias, right["head_bias"], tolerance)


@check
def climb(given, right, tolerance):
    duals = dict.fromkeys(range(5), 0.0)
    for losses, weights, after in zip(given["client_losses"], right["weights"], right["duals"], strict=True):
        used = multipliers(duals)
        near(list(used.values()), weights, tolerance)
        bounds = given["dual_lr"], given["tolerance"], given["dual_max"]
        duals = dual_step(duals, dict(enumerate(losses)), *bounds)
        near(list(duals.values()), after, tolerance)
    start = np.array(given["server_weights"])
    active = {k: start + given["client_deltas"][k] for k in given["active_clients"]}
    for linear in (True, False):
        server = WeightedSum(given["global_lr"])
        server.by_client = used
        model = Aggregator(server, linear, {"w": start}, {})
        near(one_round(model, active)["w"], right["aggregated"], tolerance)


@check
def balancefl(given, right, tolerance):
    logits, augmented, labels = (
        tensor(given["logits"]),
        tensor(given["logits_augmented"]),
        torch.tensor(given["labels"]),
    )
    settings = given["kd_weight"], given["temperature"], given["entropy_weight"]
    first = given["rows_of_second_batch"]
    every = list(range(len(labels)))
    for rows, wanted in ((every, right), (first, right["second_batch"])):
        teacher = tensor(given["teacher_logits"])[rows].tolist()
        inherit = term(Inherit(*settings), teacher, given["labels"])
        distilled = term(Inherit(*settings[:2], 0.0), teacher, given["labels"])
        seen, shown = (z[rows].clone().requires_grad_() for z in (logits, augmented))
        restricted = BatchRestrictedCrossEntropy()(shown, labels[rows])
        near(restricted, wanted["classification"], tolerance)
        near(distilled(seen, labels[rows]) / given["kd_weight"], wanted["distillation"], tolerance)
        total = restricted + inherit(seen, labels[rows])
        near(total, wanted["total"], tolerance)
        gradients = torch.autograd.grad(total, (seen, shown))
        for gradient, key in zip(gradients, ("gradient_logits", "gradient_logits_augmented"), strict=True):
            if key in wanted:
                near(gradient, wanted[key], tolerance)
    near(pooled_covariance(tensor(given["features"]), labels), right["pooled_covariance"], tolerance)
    chance = noise_probability(np.bincount(given["labels"], minlength=5))
    near(
        [chance[int(c)] for c in right["augmentation_probability"]],
        list(right["augmentation_probability"].values()),
        tolerance,
    )


@check
def fedgrab(given, right, tolerance):
    controlled = torch.zeros(5, dtype=torch.bool)
    controlled[given["controlled_classes"]] = True
    controllers = Controllers(controlled, given["kp"], given["ki"], given["kd"])
    for logits, labels, wanted in zip(given["logits"], given["labels"], right["steps"], strict=True):
        leaf, rows = tensor(logits).requires_grad_(), torch.tensor(labels)
        controllers.step()
        seen = leaf.clone()
        seen.register_hook(lambda gradient, rows=rows: controllers.weigh(gradient, targets_of(gradient, rows)))
        loss = BinaryCrossEntropy()(seen, rows)
        near(loss, wanted["loss"], tolerance)
        near(torch.where(controlled, gain(controllers.output), 1.0), wanted["positive_weight"], tolerance)
        near(torch.where(controlled, gain(-controllers.output), 1.0), wanted["negative_weight"], tolerance)
        near(torch.autograd.grad(loss, leaf)[0], wanted["gradient"], tolerance)
        near(controllers.positive, wanted["accumulated_positive"], tolerance)
        near(controllers.negative, wanted["accumulated_negative"], tolerance)
        near(controllers.output, wanted["controller_output"], tolerance)
    near(prior_of_head(np.array(given["head_weight"])), right["head_norm_prior"], tolerance)


@check
def fedetf(given, right, tolerance):
    frame = equiangular(tensor(given["orthonormal_basis"]))
    near(frame, right["etf"], tolerance)
    near(frame.T @ frame, right["gram"], tolerance)
    head = EquiangularHead(8, 5, given["scale"]).double()
    with torch.no_grad():
        head.weight.copy_(frame.T)
        head.projection.weight.copy_(torch.eye(8))
        head.projection.bias.zero_()
    for absent, key in (("one", ""), ("floor", "_variant")):
        loss = LocalBalancedSoftmax(5, absent, np.array(given["local_counts"])).double()
        features = tensor(given["projected_features"]).requires_grad_()
        value = loss(head(features), torch.tensor(given["labels"]))
        near(value, right[f"loss{key}"], FLOAT32)
        slope, of_scale = torch.autograd.grad(value, (features, head.scale))
        near(slope, right[f"gradient_in_features{key}"], FLOAT32)
        if not key:
            near(of_scale[0], right["gradient_in_scale"], FLOAT32)


@check
def fednh(given, right, tolerance):
    found = []
    for client in (1, 2):
        rows = tensor(given[f"features_client{client}"]), torch.tensor(given[f"labels_client{client}"])
        sums, counts = class_prototypes(*rows, 5)
        near(sums, right[f"scaled_prototype_client{client}"], tolerance)
        found.append((sums.numpy(), counts.numpy()))
    old = np.array(given["prototypes"])
    both = (sum(one[i] for one in found) for i in (0, 1))
    near(moved_prototypes(old, *both, given["rho"]), right["new_prototypes"], tolerance)
    near(moved_prototypes(old, *found[0], given["rho"]), right["new_prototypes_client1_alone"], tolerance)
    head = PrototypeHead(4, 5, given["scale"]).double()
    with torch.no_grad():
        head.weight.copy_(tensor(given["prototypes"]))
    wanted = right["cosine_loss"], right["cosine_loss_gradient_in_features"]

    def cosine(features, labels):
        return nn.functional.cross_entropy(head(features), labels)

    near_both(cosine, given["features_client1"], given["labels_client1"], *wanted, tolerance)
    bodies = {k: np.array(given[f"body_client{k}"]) for k in (1, 2)}
    model = Aggregator(FedAvg(fraction_train=1.0), True, {"w": np.array(given["body_server"])}, {})
    near(one_round(model, bodies)["w"], right["new_body"], tolerance)


@check
def creff(given, right, tolerance):
    head = tensor(given["head_weight"]), tensor(given["head_bias"])
    found = []
    for client in (1, 2):
        rows = tensor(given[f"features_client{client}"]), torch.tensor(given[f"labels_client{client}"])
        (weight, bias), held = class_gradients(*rows, *head)
        for label, wanted in right.get(f"class_gradient_weight_client{client}", {}).items():
            assert held[int(label)]
            near(weight[int(label)], wanted, tolerance)
            near(bias[int(label)], right[f"class_gradient_bias_client{client}"][label], tolerance)
        found.append({"weight": weight.numpy(), "bias": bias.numpy()})
    wanted, held = mean_gradients(found)
    near(wanted[0], right["mean_gradient_weight"], tolerance)
    near(wanted[1], right["mean_gradient_bias"], tolerance)
    features = tensor(given["synthetic_features"]).view(5, given["synthetic_per_class"], -1)
    losses = [mismatch(head_gradient(features[c], c, *head), (wanted[0][c], wanted[1][c])) for c in range(5)]
    near(torch.stack(losses), right["match_loss_per_class_at_start"], tolerance)
    near(sum(losses), right["match_loss_total_at_start"], tolerance)
    for steps, key in ((1, "1_step"), (3, "3_steps")):
        made = match_gradients(features, wanted, held, head, steps, given["lr_feature"])
        near(made.flatten(0, 1), right[f"synthetic_after_{key}"], tolerance)
    start = tensor(given["retrain_start_weight"]), tensor(given["retrain_start_bias"])
    weight, bias = fit_head(start, made, [torch.arange(15)] * given["retrain_epochs"], given["lr_retrain"])
    near(weight, right["retrained_weight"], tolerance)
    near(bias, right["retrained_bias"], tolerance)


def one_round(model, weights):
    """A model's parameters after a round in which clients, counted equally, return these weights."""
    instructions = model.configure(1, {k + 1: k for k in weights})
    metrics = {"num-examples": 1.0, "train_loss": 1.0, "steps": 1.0}
    contents = {k: {"arrays": array_record({"w": w}), "metrics": MetricRecord(metrics)} for k, w in weights.items()}
    replies = [(k, Message(RecordDict(contents[k]), reply_to=order)) for k, order in instructions]
    model.aggregate(1, gather(replies, reduction_of(model, replies), dict(instructions)), instructions)
    return model.parameters


def test_fedloges_global_alignment_is_the_references():
    """The part of FedLoGe that is there; tau with strength 1 gives other predictions on these rows."""
    file = json.loads((FOLDER / "fedloge.json").read_text())
    given, right = file["inputs"], file["outputs"]
    features, weight = tensor(given["features"]), tensor(given["global_head_weight"])
    bias = tensor(given["global_head_bias"])
    outputs = Outputs(features, features @ weight.T + bias, weight, bias, None)
    found = GlobalAlignment(given["global_norm"]).adjust(outputs)
    near(found, right["global_logits"], file["tolerance"])
    assert int((found.argmax(1) != TauNormalisation().adjust(outputs).argmax(1)).sum()) == 2


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ELSEWHERE and name not in NOT_BUILT])
def test_it_gives_the_reference_values(name):
    file = json.loads((FOLDER / f"{name}.json").read_text())
    assert name in CHECKS, f"reference/{name}.json: no check reads it; write one, or say in NOT_BUILT what is missing"
    CHECKS[name](file["inputs"], file["outputs"], file["tolerance"])


def test_every_check_has_its_file_and_no_method_is_called_missing_that_is_there():
    assert set(CHECKS) | set(ELSEWHERE) | set(NOT_BUILT) == set(NAMES)
    assert not set(CHECKS) & set(NOT_BUILT)
    for name, place in ELSEWHERE.items():
        assert f'reference("{name}")' in (Path(__file__).parents[2] / place).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_those_of_the_specification(name):
    data = os.environ.get("FEDIMB_DATA_DIR")
    original = Path(data or "/nowhere").parent / "specs" / "reference" / f"{name}.json"
    if not original.exists():
        pytest.skip("no specification beside FEDIMB_DATA_DIR; the copies here are what is tested")
    assert json.loads(original.read_text()) == json.loads((FOLDER / f"{name}.json").read_text())
