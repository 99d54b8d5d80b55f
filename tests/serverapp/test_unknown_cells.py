"""Runs on rows with several labels, of which single cells are unknown: they train, count and score nothing."""

import csv

import numpy as np
import pytest
import torch
from small_runs import config, launch_in, weights_sha
from torch.nn.functional import binary_cross_entropy_with_logits

from fedimb import registry
from fedimb.api import load_model
from fedimb.cli.scoring import Options, score_to
from fedimb.config.combinations import Combination, refusal
from fedimb.data.label_spaces import ClientLabels, PartialLabels
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError
from fedimb.evaluation.multilabel import label_confusion
from fedimb.evaluation.probabilities import probability_scores
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.row_scores import RowScores
from fedimb.serverapp.launch import launch
from fedimb.study import computed
from fedimb.study.model_pairs import compare_models, read_row

TESTS = 80


def drawn(seed=0, n=320):
    """(x, targets with NaN where unknown, site, whether it is a test row): cells are missing in both."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 4)) < [0.6, 0.4, 0.3, 0.2]).astype(float)
    x = (2.0 * targets @ rng.normal(size=(4, 6)) + rng.normal(size=(n, 6))).astype(np.float32)
    targets[~targets.any(axis=1), 0] = 1  # no class "none"
    hidden = rng.random((n, 4)) < [0.1, 0.2, 0.3, 0.2]
    hidden[targets[:, 0] == 1, 0] &= rng.random(int((targets[:, 0] == 1).sum())) < 0.5
    targets[hidden] = np.nan
    targets[(targets == 0).all(axis=1)] = 1
    return x, targets, rng.integers(0, 3, n), np.arange(n) < TESTS


def write(path, x, y, sites, test):
    np.savez(path, x=x, y=y, sites=np.array(["north", "south", "west"])[sites], test=test)
    return path


def words(path, *more):
    return (
        "data=npz", f"data.source.path={path}", "data.source.class_names=[a,b,c,d]",
        "data.source.cell_map={nan: unknown}", "partition=by_column", "clients.count=3", "data.n_max=null",
        "data.class_order=fixed", "data.minority=[c,d]", "model=logistic", "loss=bce", "local.lr=0.1",
        "local.epochs=2", "engine=inline", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    data = drawn()
    path = write(folder / "d.npz", *data)
    found = launch_in(folder, *words(path, "data.validation=0.25", "evaluation.bootstrap=50", "loss=weighted_bce"))
    return found, data, path


def test_scores_are_those_computed_by_hand_on_the_known_cells(run):
    result, (_, targets, _, test), _ = run
    (row,) = result.rows
    saved = RowScores.read(result.folder, row.label)
    truth, said = targets[test], saved.logits > 0
    assert np.isnan(truth).mean() > 0.1
    expected = np.zeros((4, 2, 2), np.int64)
    for (i, c), t in np.ndenumerate(np.where(np.isnan(truth), -1, truth).astype(int)):
        if t >= 0:
            expected[c, t, int(said[i, c])] += 1
    np.testing.assert_array_equal(row.confusion, expected)
    np.testing.assert_array_equal(saved.confusion(), expected)
    recalls = [expected[c, 1, 1] / expected[c, 1].sum() for c in range(4)]
    by_class = probability_scores(1 / (1 + np.exp(-saved.logits.astype(np.float64))), truth)
    for c in range(4):
        own = ~np.isnan(truth[:, c])
        up, down = (saved.logits[own & (truth[:, c] == t), c] for t in (1, 0))
        pairs = (up[:, None] > down).mean() + (up[:, None] == down).mean() / 2
        np.testing.assert_allclose(by_class.auroc[c], pairs)
    last = list(RunFolder(result.folder).metrics())[-1]["metrics"]
    np.testing.assert_allclose(last["test/macro_recall"], np.mean(recalls))
    np.testing.assert_allclose(last["test/minority_recall"], np.mean(recalls[2:]))
    low, high = row.intervals["minority_recall"]
    assert low <= np.mean(recalls[2:]) <= high


def test_one_step_is_the_gradient_over_known_cells(tmp_path):
    """A logistic model of one client, one full batch: the weights are those of the masked loss, by autograd."""
    x, targets, sites, test = drawn()
    path = write(tmp_path / "d.npz", x, targets, sites, test)
    more = ("partition=iid", "clients.count=1", "rounds=1", "local.epochs=1", "local.batch_size=400")
    found = launch_in(tmp_path, *words(path, *more, "local.momentum=0", "local.weight_decay=0"))
    start = launch_in(tmp_path / "still", *words(path, *more, "local.lr=1e-12"))
    weights, before = (dict(load_model(one.folder).classifier.state_dict()) for one in (found, start))
    kept = ~test & ~np.isnan(targets).all(axis=1)
    given, labels = torch.from_numpy(x[kept]), torch.from_numpy(targets[kept]).float()
    leaf = {k: v.clone().requires_grad_() for k, v in before.items()}
    (weight,), (bias,) = ([v for k, v in leaf.items() if k.endswith(end)] for end in ("weight", "bias"))
    known = ~labels.isnan()
    each = binary_cross_entropy_with_logits(given @ weight.T + bias, labels.nan_to_num(), reduction="none")
    (each * known).sum(1).mean().backward()
    for key, value in leaf.items():
        np.testing.assert_allclose(weights[key], (value - 0.1 * value.grad).detach(), rtol=1e-4, atol=1e-5)


def test_rows_of_which_nothing_is_known_train_as_if_they_were_not_there(tmp_path):
    """Bit by bit the weights of a run on data that lack these rows."""
    x, targets, sites, test = drawn()
    out = ~test & (np.arange(len(x)) % 5 == 0)
    targets[out] = np.nan
    bare = np.isnan(targets).all(axis=1) & ~test
    whole = launch_in(tmp_path, *words(write(tmp_path / "w.npz", x, targets, sites, test), "loss=weighted_bce"))
    kept = (x[~bare], targets[~bare], sites[~bare], test[~bare])
    less = launch_in(tmp_path, *words(write(tmp_path / "l.npz", *kept), "loss=weighted_bce"))
    assert weights_sha(whole) == weights_sha(less)
    np.testing.assert_array_equal(whole.train_counts, less.train_counts)
    np.testing.assert_array_equal(whole.prior_counts, less.prior_counts)


def test_an_unknown_cell_is_no_negative(tmp_path, run):
    result, (x, targets, sites, test), _ = run
    zeros = write(tmp_path / "z.npz", x, np.nan_to_num(targets), sites, test)
    other = launch_in(tmp_path, *words(zeros, "data.validation=0.25", "loss=weighted_bce"))
    assert weights_sha(other) != weights_sha(result)


@pytest.mark.parametrize("provenance", ["clear_sum", "secure_sum", "oracle"])
def test_the_prior_counts_a_class_over_the_rows_of_which_it_is_known(tmp_path, provenance):
    x, targets, sites, test = drawn()
    path = write(tmp_path / "d.npz", x, targets, sites, test)
    found = launch_in(tmp_path, *words(path, "loss=weighted_bce", f"prior.provenance={provenance}", "rounds=1"))
    train = targets[~test & ~np.isnan(targets).all(axis=1)]
    np.testing.assert_allclose(found.prior_counts, np.nanmean(train, axis=0) * len(train))


def test_a_clients_own_prior_counts_a_class_over_the_rows_of_which_it_is_known(tmp_path):
    """With one client it is the federation's."""
    path = write(tmp_path / "d.npz", *drawn())
    settings = words(path, "loss=weighted_bce", "rounds=1", "partition=iid", "clients.count=1")
    whole, own = (
        launch_in(tmp_path / name, *settings, f"prior.provenance={name}", "local.epochs=1")
        for name in ("oracle", "local")
    )
    assert weights_sha(own) == weights_sha(whole)


def test_no_label_is_counted_over_the_rows_that_have_it_and_those_with_every_cell_known():
    nan = np.nan
    labels = ClientLabels(np.arange(3), np.zeros((0, 3), bool), none=2)
    seen = np.array([[1, 0, 0], [0, 0, 1], [1, nan, 0], [0, nan, nan], [nan, nan, 0]], np.float32)
    partial = PartialLabels(labels, seen, np.zeros(5, np.int64))
    np.testing.assert_allclose(partial.full_counts(np.arange(5), 3), [2 / (4 / 5), 0, 1 / (2 / 5)])


def test_clients_alone_and_the_majority_count_as_the_federation_does(tmp_path):
    x, targets, sites, test = drawn()
    rare = np.arange(len(x)) % 4 > 0  # class b is in most rows of which it is known, and these are few
    targets[:, 1] = np.where(rare, np.nan, 1)
    targets[:, 0] = 1
    one = config(*words(write(tmp_path / "d.npz", x, targets, sites, test), "loss=weighted_bce"))
    federation = prepare(one.data, one.partition, one.clients.count, one.seed)
    for k in range(3):
        own = targets[federation.train[k]]
        full = np.nanmean(own, axis=0) * len(own)
        loss = computed._work(one, federation, k).spec.loss
        np.testing.assert_allclose(loss.weights, np.minimum(10, full.max() / full), rtol=1e-6)
    said = np.array(computed.compute("majority", one)["rows"]["majority"]["matrix"])[:, :, 1].sum(axis=1) > 0
    assert said.tolist() == [True, True, False, False]


def test_the_minority_is_what_is_rare_among_known_cells(tmp_path):
    """a is in every tenth row; b is in half of those of which it is known, which are fewer."""
    x, targets, sites, test = drawn()
    at = np.arange(len(x))
    targets[:, 2:] = 1
    targets[:, 0] = at % 10 == 0
    targets[:, 1] = np.where(at % 16 < 2, at % 2, np.nan)
    path = write(tmp_path / "d.npz", x, targets, sites, test)
    one = config(*words(path, "partition=iid", "data.minority=rarest_30pct"))
    found = prepare(one.data, one.partition, 3, 0)
    assert found.class_totals[1] < found.class_totals[0]
    assert found.minority == (0,)


def test_a_tree_of_regions_has_the_prior_and_the_weights_of_the_flat_run(tmp_path):
    path = write(tmp_path / "d.npz", *drawn())
    settings = words(path, "loss=weighted_bce", "rounds=1", "partition=iid", "clients.count=4")
    flat = launch_in(tmp_path / "flat", *settings)
    tree = launch_in(tmp_path / "tree", *settings, "clients.regions=[2,2]", "clients.min_members=2")
    assert flat.prior_counts is not None
    np.testing.assert_array_equal(tree.prior_counts, flat.prior_counts)
    assert weights_sha(tree) == weights_sha(flat)


def test_stacked_clients_train_on_the_same_cells(tmp_path, run):
    _, _, path = run
    settings = words(path, "loss=weighted_bce")
    loop, stacked = (
        launch_in(tmp_path / trainer, *settings, f"engine.trainer={trainer}") for trainer in ("loop", "stacked")
    )
    one, other = (load_model(found.folder).classifier.state_dict() for found in (loop, stacked))
    for key, value in one.items():
        np.testing.assert_allclose(other[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_ray_gives_the_same_weights(tmp_path, run):
    _, _, path = run
    plain = launch_in(tmp_path / "inline", *words(path))
    spread = launch_in(tmp_path / "ray", *words(path, "engine=ray", "engine.workers=2"))
    assert weights_sha(plain) == weights_sha(spread)
    np.testing.assert_array_equal(plain.rows[0].confusion, spread.rows[0].confusion)


def test_new_rows_are_scored_on_their_known_cells_and_say_which_are_unknown(tmp_path, run):
    result, _, _ = run
    x, targets, _, _ = drawn(seed=1, n=50)
    np.savez(tmp_path / "new.npz", x=x, y=np.where(np.isnan(targets), -1, targets))
    source = {"name": "npz", "path": str(tmp_path / "new.npz"), "cell_map": {-1: "unknown"}}
    scored = score_to(RunResult.read(result.folder), source, tmp_path / "out.csv", Options(best_f1=True))
    with open(tmp_path / "out.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    said = np.array([[name in line["labels"].split("|") for name in "abcd"] for line in lines])
    np.testing.assert_array_equal(scored.confusion, label_confusion(targets, said))
    for line, row in zip(lines, targets, strict=True):
        shown = [{1.0: "", 0.0: None}.get(value, "?") for value in row.tolist()]
        expected = "|".join(f"{mark}{name}" for mark, name in zip(shown, "abcd", strict=True) if mark is not None)
        assert line["true"] == expected
    own = score_to(RunResult.read(result.folder), None, tmp_path / "own.csv")
    np.testing.assert_array_equal(own.confusion, result.rows[0].confusion)


def test_two_models_are_compared_on_the_known_cells(tmp_path, run):
    result, (_, targets, _, test), path = run
    other = launch_in(tmp_path, *words(path, "data.validation=0.25", "rounds=1"))
    pair = compare_models(read_row(result.folder), read_row(other.folder), resamples=50)
    for c in range(4):
        own = targets[test][:, c]
        assert (pair.auroc[c].positives, pair.auroc[c].negatives) == ((own == 1).sum(), (own == 0).sum())
        assert pair.recall.classes[c].rows == (own == 1).sum()
    recalls = [one.recall_a for one in pair.recall.classes]
    np.testing.assert_allclose(recalls, [table[1, 1] / table[1].sum() for table in result.rows[0].confusion])


def test_whatever_reaches_labels_is_refused_or_declares_that_it_tells_unknown_cells(run):
    """Over the registry: parts by their flag, and the kinds that only a method uses by the methods that take cells."""
    by_method = {"coreset", "generator", "query", "client", "contract"}
    gets = {"loss", "sampler", "strategy", "objective", "augmentation", "attack", "resampler"}
    taken = []
    for kind in gets:
        for name in registry.names(kind):
            entry = registry.get(kind, name)
            said = refusal(Combination((entry,), unknown="cells", task="multilabel"))
            if "cells" in entry.flags.get("unknown_labels", ()):
                taken.append((kind, name))
                assert said is None, (kind, name)
            else:
                assert said is not None, (kind, name)
                assert "\n" not in said
    methods = {name for kind, name in taken if kind == "strategy"}
    # A method that takes cells hands no labels to a coreset, a generator or a query of labels.
    for name in methods:
        settings = registry.parameters("strategy", name)
        assert not by_method & {part for setting in settings for part in by_method if part in setting}, name
    assert {"plain"} <= methods
    # What is left sees no label: it gets weights, inputs, or counts of known positives.
    rest = set(registry.KINDS) - gets - by_method
    assert rest == {"aggregator", "calibration", "encoder", "explanation", "model", "pace", "partition", "source"}
    for name in registry.names("calibration"):
        entry = registry.get("calibration", name)
        assert (refusal(Combination((entry,), unknown="cells", task="multilabel")) is None) == (name == "none")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("sampler=class_balanced",), "sampler 'class_balanced' cannot take cells"),
        (("loss=vcb", "loss.rows=240"), "loss 'vcb' cannot take cells"),
        (("strategy=coreset",), "strategy 'coreset'"),
        (("aggregator=distil",), "distil"),
        (("attack=rare_mimic",), "attack 'rare_mimic'"),
        (("evaluation.temperature=true", "data.validation=0.2"), "evaluation.temperature=true"),
        (("data.test={name: none}", "data.validation=0.2"), "data.test={name: none} needs one class per row"),
    ],
)
def test_what_cannot_take_unknown_cells_is_refused_before_there_is_a_run_folder(tmp_path, run, more, says):
    one = config(*words(run[2], *more), f"output_dir={tmp_path}/runs")
    with pytest.raises(ConfigError) as caught:
        launch(one)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
