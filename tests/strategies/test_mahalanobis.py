"""The gate by Mahalanobis distance: the head, the limits, a run against a second computation."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_runs import config, launch_in

from fedimb.data.prepare import prepare
from fedimb.discriminant.gate import distance_counts, edges_of, feature_sums, gaussians, limits
from fedimb.errors import ConfigError
from fedimb.models.heads import GATED, NEVER_FAR, GatedHead
from fedimb.privacy.secure_sum import from_fixed

TABLE = ("data=synthetic_table", "data.source.rows=600", "data.source.features=6", "engine=inline", "rounds=2")
OWN = (*TABLE, "strategy=mahalanobis", "model=logistic", "model.head=gated")


def rows(counts, d=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    return rng.normal(size=(len(y), d)) * [1, 2, 3] + 4 * y[:, None], y


def test_a_row_far_from_the_first_class_goes_to_the_next_that_is_near():
    head = GatedHead(2, 3).eval()
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[3.0, 0], [2, 0], [1, 0]]))
        head.bias.zero_()
        plain = head(x)
        head.means.copy_(torch.tensor([[5.0, 0], [1, 0], [1, 1]]))
        head.root.copy_(torch.diag(torch.tensor([0.5, 2.0])))
        head.reach.copy_(torch.tensor([3.9, 1.0, 1.0]))
        found = head(x)
    assert head.distances(x)[0].tolist() == pytest.approx([4.0, 0.0, 4.0])  # (1 - 5)^2 / 4, 0, (1 - 0)^2 * 4
    assert plain.argmax(1).tolist() == [0, 0, 0]
    assert found.argmax(1).tolist() == [1, 1, 0]  # the third is far from all: as without the gate
    assert found[0].tolist() == pytest.approx([3 - GATED, 2, 1 - GATED])
    assert torch.equal(found[2], plain[2])
    head.train()
    assert torch.equal(head(x), plain)


@pytest.mark.parametrize("ungated", ["few rows", "rows beyond the last edge"])
def test_a_class_without_a_gate_gets_no_rows_that_are_far_and_keeps_its_own(ungated):
    last = [0, 3] if ungated == "few rows" else [0, 30]  # of class 2: bins up to .25 and above
    few = limits(np.array([[30, 0], [30, 0], last]), np.array([0.25]), 0.95, min_count=10)
    assert few.tolist() == [0.25, 0.25, NEVER_FAR]
    head = GatedHead(1, 3).eval()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [0], [0]]))
        head.bias.copy_(torch.tensor([3.0, 1, 2]))
        head.means.copy_(torch.tensor([[0.0], [4], [8]]))
        head.root.fill_(1.0)
        head.reach.copy_(torch.from_numpy(few))
        # near 0: stays; near 1 only: to 1, past the likelier class 2; near none, even at class 2's mean: stays
        assert head(torch.tensor([[0.2], [4.2], [90.0], [8.0]])).argmax(1).tolist() == [0, 1, 0, 0]
        assert torch.equal(head(torch.tensor([[90.0]])), head.bias[None])
        head.bias.copy_(torch.tensor([2.0, 1, 3]))
        assert head(torch.tensor([[0.2], [4.2], [90.0]])).argmax(1).tolist() == [2, 2, 2]


def test_gaussians_are_those_of_all_rows_and_limits_are_quantiles():
    x, y = rows([200, 50, 9])
    total = sum(feature_sums(x[part], y[part], 4) for part in np.array_split(np.arange(len(y)), 3))
    counts, means, root = gaussians(from_fixed(total), 4, 3, shrinkage=0.0)
    assert counts.tolist() == [200, 50, 9, 0]
    assert means[:3] == pytest.approx(np.stack([x[y == c].mean(axis=0) for c in range(3)]), abs=1e-5)
    assert means[3] == pytest.approx(x.mean(axis=0), abs=1e-5)
    centred = x - means[y]
    assert root @ root.T == pytest.approx(np.linalg.inv(centred.T @ centred / (259 - 3)), abs=1e-4)
    squared = np.einsum("nd,de,ne->n", centred, root @ root.T, centred)
    edges = edges_of(3, 60)
    found = limits(distance_counts(x, y, means, root, edges), edges, 0.9, min_count=10)
    for c in range(2):
        inside = np.sort(squared[y == c])
        wanted = edges[np.searchsorted(edges, inside[int(np.ceil(0.9 * len(inside))) - 1])]
        assert found[c] == pytest.approx(wanted)
        assert (squared[y == c] <= found[c]).mean() >= 0.9
    assert found[2:].tolist() == [NEVER_FAR] * 2  # nine rows, and none


def test_the_covariance_shrinks_to_a_multiple_of_the_identity():
    x, y = rows([40, 30])
    _, _, root = gaussians(from_fixed(feature_sums(x, y, 2)), 2, 3, shrinkage=1.0)
    assert root @ root.T == pytest.approx(np.eye(3) * (root @ root.T)[0, 0], abs=1e-9)


def test_a_run_trains_as_without_it_and_then_sets_the_gate(tmp_path):
    gated = launch_in(tmp_path, *OWN, "strategy.mahalanobis.quantile=0.8", "strategy.mahalanobis.shrinkage=0.2")
    plain = launch_in(tmp_path, *TABLE, "model=logistic")
    found, without = (load_file(r.folder / "artifacts" / "model" / "model.safetensors") for r in (gated, plain))
    for name in ("head.weight", "head.bias"):
        np.testing.assert_allclose(found[name], without[name], atol=1e-6)  # clients are trained one by one with it
    own = config(*OWN)
    federation = prepare(own.data, own.partition, own.clients.count, own.seed)
    parts = [federation.client(k).tensors("train") for k in range(federation.n_clients)]
    x, y = (np.concatenate([part[at].numpy() for part in parts]) for at in (0, 1))
    _, means, root = gaussians(
        from_fixed(feature_sums(x.astype(np.float64), y, federation.n_classes)), federation.n_classes, 6, 0.2
    )
    assert found["head.means"] == pytest.approx(means, abs=1e-4)
    assert found["head.root"] @ found["head.root"].T == pytest.approx(root @ root.T, rel=1e-3, abs=1e-4)
    told = json.loads((gated.folder / "artifacts" / "mahalanobis.json").read_text())
    squared = (((x - means[y]) @ root) ** 2).sum(axis=1)
    for c, limit in enumerate(told["limits"].values()):
        assert (limit is None) == (told["rows"][c] < 20)
        if limit is not None:
            assert found["head.reach"][c] == pytest.approx(limit)
            assert (squared[y == c] <= 1.001 * limit).mean() >= 0.8


def test_a_head_that_an_inner_method_made_stays(tmp_path):
    inner = ("strategy.c2tc.min_count=3", "strategy.c2tc.epochs=3")
    alone = launch_in(tmp_path, *OWN, "strategy=c2tc", *inner)
    gated = launch_in(tmp_path, *OWN, "strategy=[mahalanobis,c2tc]", *inner)
    one, two = (load_file(run.folder / "artifacts" / "model" / "model.safetensors") for run in (alone, gated))
    np.testing.assert_array_equal(one["head.weight"], two["head.weight"])
    assert np.abs(two["head.root"]).max() > 0 == np.abs(one["head.root"]).max()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.head=linear"], r"model\.head=gated"),
        (["privacy.clip=1"], r"set privacy\.clip=null"),
        (["clients.count=1"], "hide nothing with one client"),
        (["strategy.mahalanobis.quantile=0"], "quantile=0"),
        (["calibration=tau"], "a head with a gate"),
        (["calibration=la_post", "calibration.la_post.tau=temperature"], r"no temperature.*give tau as a number"),
        (["evaluation.temperature=true"], r"no temperature.*set evaluation\.temperature=false"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *OWN, *words)
