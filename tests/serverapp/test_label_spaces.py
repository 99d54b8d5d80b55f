"""Runs whose clients annotate different classes: what is unknown has no influence, and no part mistakes it."""

from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import config, launch_in, weights_sha

from fedimb import registry
from fedimb.clientapp.explanations import _rows
from fedimb.config.combinations import Combination, refusal
from fedimb.config.parts import build_model
from fedimb.config.validate import check_task, parts_of
from fedimb.data.prepare import prepare
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import launch
from fedimb.study.computed import compute

SITES, TESTS = 3, 60
NAMES = "[a,b,c,d]"
ANNOTATED = "data.labels.annotated={north: [a,b], south: [a,c,d]}"  # west: all
HIDDEN = {0: [2, 3], 1: [1]}  # classes by site


def rows(seed=0, n=300):
    """Rows of four classes at three sites; a fifth are test rows."""
    rng = np.random.default_rng(seed)
    y = rng.choice(4, n, p=[0.45, 0.25, 0.2, 0.1])
    x = (2.0 * np.eye(4)[y] @ rng.normal(size=(4, 6)) + rng.normal(size=(n, 6))).astype(np.float32)
    return x, y, rng.integers(0, SITES, n), np.arange(n) < TESTS


def write(path, x, y, sites, test):
    np.savez(path, x=x, y=y, sites=np.array(["north", "south", "west"])[sites], test=test)
    return path


def words(path, *more, names=NAMES):
    return (
        "data=npz",
        f"data.source.path={path}",
        f"data.source.class_names={names}",
        "partition=by_column",
        "clients.count=3",
        "data.n_max=null",
        "data.class_order=fixed",
        "model=logistic",
        "local.lr=0.1",
        "local.epochs=2",
        "engine=inline",
        *more,
    )


def hidden(y, sites, test):
    """[n] bool: training rows of a class that their site does not annotate."""
    return ~test & np.array([c in HIDDEN.get(s, []) for c, s in zip(y.tolist(), sites.tolist(), strict=True)])


def test_masking_all_unknowns_equals_training_without_them(tmp_path):
    """Multiclass: the weights are those of a run on data that lack the rows, bit by bit."""
    x, y, sites, test = rows()
    out = hidden(y, sites, test)
    assert out.sum() > 30
    whole, less = tmp_path / "whole.npz", tmp_path / "less.npz"
    write(whole, x, y, sites, test)
    write(less, x[~out], y[~out], sites[~out], test[~out])
    masked = launch_in(tmp_path, *words(whole, ANNOTATED, "data.validation=0.2", "loss=balanced_softmax"))
    without = launch_in(tmp_path, *words(less, "data.validation=0.2", "loss=balanced_softmax"))
    assert weights_sha(masked) == weights_sha(without)
    np.testing.assert_array_equal(masked.train_counts, without.train_counts)
    full = launch_in(tmp_path, *words(whole, "data.validation=0.2", "loss=balanced_softmax"))
    assert weights_sha(full) != weights_sha(masked)


def test_a_coarse_label_says_no_more_than_its_set(tmp_path):
    """Classes are exchanged within what a site does not tell apart: nothing that is trained or counted changes."""
    x, y, sites, test = rows()
    other = y.copy()
    at = np.flatnonzero(hidden(y, sites, test) & (sites == 0))
    other[at] = np.where(y[at] == 2, 3, 2)
    assert (other != y).sum() > 20
    settings = (ANNOTATED, "data.labels.unknown=coarse", "loss=partial_ce", "calibration=[none,la_post]")
    found = [
        launch_in(tmp_path, *words(write(tmp_path / f"{i}.npz", x, one, sites, test), *settings))
        for i, one in enumerate((y, other))
    ]
    assert weights_sha(found[0]) == weights_sha(found[1])
    np.testing.assert_array_equal(found[0].train_counts, found[1].train_counts)
    for one, two in zip(found[0].rows, found[1].rows, strict=True):  # la_post's prior too
        np.testing.assert_array_equal(one.confusion, two.confusion)
    masked = launch_in(tmp_path, *words(tmp_path / "0.npz", ANNOTATED))
    assert weights_sha(masked) != weights_sha(found[0])  # that a row is none of a and b is learned from


def several(seed=0, n=300):
    rng = np.random.default_rng(seed)
    targets = rng.random((n, 4)) < [0.6, 0.4, 0.3, 0.2]
    targets[~targets.any(axis=1), 0] = True
    x = (2.0 * targets @ rng.normal(size=(4, 6)) + rng.normal(size=(n, 6))).astype(np.float32)
    return x, targets, rng.integers(0, SITES, n), np.arange(n) < TESTS


@pytest.mark.parametrize("loss", ["weighted_bce", "cfpl"])
def test_an_unknown_cell_has_no_influence(tmp_path, loss):
    """Several labels: every hidden cell is turned over, and no weight, count or client's score changes."""
    x, targets, sites, test = several()
    other = targets.copy()
    for site, classes in HIDDEN.items():
        at = np.ix_(~test & (sites == site), classes)
        other[at] = ~other[at]
    keep = other.any(axis=1)  # a row without any label would be of another class, "none"
    settings = (ANNOTATED, "data.validation=0.2", f"loss={loss}", "data.minority=[c,d]")
    folders = []
    for i, one in enumerate((targets, other)):
        path = write(tmp_path / f"{i}.npz", x[keep], one[keep], sites[keep], test[keep])
        folders.append(launch_in(tmp_path, *words(path, *settings)))
    first, second = folders
    np.testing.assert_array_equal(first.train_counts, second.train_counts)
    lines = [[line["metrics"] for line in RunFolder(one.folder).metrics()] for one in folders]
    assert lines[0][-1]["client/macro_recall"] == lines[1][-1]["client/macro_recall"]
    assert weights_sha(first) == weights_sha(second)


@pytest.mark.parametrize("provenance", ["clear_sum", "secure_sum", "oracle"])
def test_the_prior_counts_a_class_over_the_sites_that_annotate_it(tmp_path, provenance):
    x, y, sites, test = rows()
    path = write(tmp_path / "d.npz", x, y, sites, test)
    settings = (ANNOTATED, "data.labels.unknown=coarse", "loss=partial_ce", "calibration=[none,la_post]")
    found = launch_in(tmp_path, *words(path, *settings, f"prior.provenance={provenance}"))
    at = np.stack([np.bincount(y[~test & (sites == s)], minlength=4) for s in range(SITES)])
    known = np.array([[s not in HIDDEN or c not in HIDDEN[s] for c in range(4)] for s in range(SITES)])
    expected = (at * known).sum(axis=0) / ((at.sum(axis=1)[:, None] * known).sum(axis=0) / at.sum())
    np.testing.assert_allclose(found.prior_counts, expected)


def test_one_round_heads_count_a_class_over_the_sites_that_annotate_it(tmp_path):
    """With prior=data the head's log prior is that of the data, however few sites annotate a class.

    No loss is asked for: nothing is trained with one.
    """
    x, y, sites, test = rows()
    path = write(tmp_path / "d.npz", x, y, sites, test)
    method = ("strategy=oneround", "strategy.oneround.use=alone", "strategy.oneround.prior=data")
    shifts = []
    for unknown in ("masked", "coarse"):
        extra = (ANNOTATED, f"data.labels.unknown={unknown}", "strategy.oneround.shrinkage=0.5")
        data = launch_in(tmp_path, *words(path, *method, *extra))
        shifts.append(bias(data) - bias(launch_in(tmp_path, *words(path, *method[:2], *extra))))
    at = np.stack([np.bincount(y[~test & (sites == s)], minlength=4) for s in range(SITES)])
    known = np.array([[s not in HIDDEN or c not in HIDDEN[s] for c in range(4)] for s in range(SITES)])
    rate = (at * known).sum(axis=0) / (at.sum(axis=1)[:, None] * known).sum(axis=0)
    expected = np.log(rate) - np.log(rate).mean()  # what all classes share is taken off a head
    np.testing.assert_allclose(shifts[0], expected, atol=1e-4)
    np.testing.assert_allclose(shifts[1], expected, atol=1e-4)


def bias(result):
    from safetensors.numpy import load_file

    return load_file(result.folder / "artifacts" / "model" / "model.safetensors")["head.bias"].astype(float)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("rows") / "d.npz", *rows())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("loss=ce",), "loss 'ce' cannot take labels that are sets of classes; use partial_ce"),
        (("loss=partial_ce", "sampler=class_balanced"), "sampler 'class_balanced' cannot take labels that are sets"),
        (("loss=partial_ce", "strategy=coreset"), "strategy 'coreset' cannot take labels that are sets of classes"),
        (("loss=partial_ce", "attack=label_flip"), "attack 'label_flip' cannot take labels that are sets of classes"),
        (
            ("loss=partial_ce", "calibration=[none,la_post]", "calibration.la_post.tau=temperature"),
            "some of these labels are unknown; give tau as a number",
        ),
        (
            ("loss=partial_ce", "calibration=[none,la_post]", "prior.weighting=effective"),
            "do not cover the classes that it does not annotate; set prior.weighting=data",
        ),
        (("loss=partial_ce", "evaluation.temperature=true", "data.validation=0.2"), "some of these labels are unknown"),
    ],
)
def test_what_cannot_take_coarse_labels_is_refused_before_there_is_a_run_folder(file, tmp_path, more, says):
    one = config(*words(file, ANNOTATED, "data.labels.unknown=coarse", *more), f"output_dir={tmp_path}/runs")
    with pytest.raises(ConfigError) as caught:
        launch(one)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_labels_cannot_be_asked_for_where_a_site_could_not_give_them(file, tmp_path):
    one = config(*words(file, ANNOTATED, "strategy=active"), f"output_dir={tmp_path}/runs")
    with pytest.raises(ConfigError, match="some clients do not annotate every class and could not answer"):
        launch(one)


def test_every_part_that_gets_labels_is_refused_unless_it_declares_that_it_can_tell_unknown_ones():
    """By the flag, whatever the name: a part of a plug-in too."""
    for kind in ("loss", "sampler", "strategy", "objective", "augmentation", "attack", "resampler"):
        for name in registry.names(kind):
            entry = registry.get(kind, name)
            for unknown in ("cells", "coarse"):
                found = refusal(Combination((entry,), unknown=unknown, task=None)) or ""
                refused = f"{kind} '{name}' cannot take" in found
                assert refused == (unknown not in entry.flags.get("unknown_labels", ())), (kind, name, unknown)
            assert "cannot take" not in (refusal(Combination((entry,), unknown="masked")) or "")


def test_what_is_chosen_by_default_takes_unknown_labels():
    """Else a default that sees labels, added later, refuses every run with unknown ones."""
    for unknown, loss in (("cells", "bce"), ("coarse", "partial_ce")):
        assert refusal(Combination(parts_of(config(f"loss={loss}")), unknown=unknown)) is None


@pytest.mark.parametrize(
    ("words", "what", "says"),
    [
        ((), {"unknown": "coarse"}, None),
        (("use=init",), {"unknown": "coarse"}, "loss 'ce' cannot take"),
        (("use=post",), {"unknown": "coarse"}, "loss 'ce' cannot take"),
        ((), {"unknown": "cells"}, "strategy 'oneround' cannot take"),
        ((), {"task": "multilabel"}, "strategy 'oneround' is for multiclass"),
    ],
)
def test_what_trains_nothing_is_not_asked_for_a_loss_that_it_could_not_be_given(words, what, says):
    one = config("strategy=oneround", "model=logistic", *(f"strategy.oneround.{word}" for word in words))
    found = refusal(Combination(parts_of(one), **what))
    assert found is None if says is None else found.startswith(says)


def test_masked_rows_are_refused_to_nobody_but_those_who_ask(file):
    one = config(*words(file, ANNOTATED, "sampler=class_balanced", "strategy=coreset"))
    federation = prepare(one.data, one.partition, 3, 0)
    check_task(one, federation.task, federation.unknown_rule)


def test_computed_rows_train_on_what_each_client_knows(file):
    masked = compute("local", config(*words(file, ANNOTATED)))
    assert masked["rows"]["local_mean"]["labels"] == sum(masked["train_counts"])
    coarse = compute("local", config(*words(file, ANNOTATED, "data.labels.unknown=coarse", "loss=partial_ce")))
    assert coarse["train_counts"] == masked["train_counts"]
    assert coarse["rows"]["local_mean"]["scores"] != masked["rows"]["local_mean"]["scores"]
    with pytest.raises(ConfigError, match="cannot take labels that are sets of classes"):
        compute("local", config(*words(file, ANNOTATED, "data.labels.unknown=coarse")))


@pytest.mark.parametrize("several_labels", [False, True])
def test_rows_whose_class_a_client_does_not_know_are_not_explained(tmp_path, several_labels):
    path = write(tmp_path / "d.npz", *(several() if several_labels else rows()))
    extra = ("loss=bce", "data.minority=[c,d]") if several_labels else ("data.labels.unknown=coarse", "loss=partial_ce")
    one = config(*words(path, ANNOTATED, *extra))
    federation = prepare(one.data, one.partition, SITES, one.seed)
    model = build_model(one, federation.n_classes, federation.input_shape)
    context = SimpleNamespace(data=federation.client(0), config=one, client=0, model=model)
    explained, numbers = _rows(context)
    own = federation.train[0]
    told = np.isin(np.asarray(federation.store.y)[own], HIDDEN[0], invert=True)
    if several_labels:
        told = np.delete(federation.store.targets[own], HIDDEN[0], axis=1).any(axis=1)
    assert 0 < told.sum() < len(own)
    assert numbers.tolist() == explained.people.tolist() == own[told].tolist()
    assert len(explained.x) == len(explained.y) == told.sum()
    assert set(explained.y.tolist()) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["partial_ce", "bce"])
def test_ray_gives_the_same_weights(tmp_path, loss):
    path = write(tmp_path / "d.npz", *(several() if loss == "bce" else rows()))
    extra = () if loss == "bce" else ("data.labels.unknown=coarse",)
    settings = words(path, ANNOTATED, f"loss={loss}", *extra, "data.minority=[c,d]")
    plain = launch_in(tmp_path / "inline", *settings)
    spread = launch_in(tmp_path / "ray", *settings, "engine=ray", "engine.workers=2")
    assert weights_sha(plain) == weights_sha(spread)
