"""Random, least confidence, margin, entropy, kafal, feal: rules that order rows by a score."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from fedimb.errors import ConfigError
from fedimb.selection.queries.base import ModelOutputs
from fedimb.selection.queries.entropy import Entropy
from fedimb.selection.queries.feal import Feal, data_uncertainty, dirichlet_entropy, evidence
from fedimb.selection.queries.kafal import Kafal, symmetric_divergence
from fedimb.selection.queries.least_confidence import LeastConfidence
from fedimb.selection.queries.margin import Margin
from fedimb.selection.queries.random import Random

# The three disagree on which of these is the most doubtful.
P = torch.tensor([[0.50, 0.49, 0.01], [0.45, 0.30, 0.25], [0.44, 0.42, 0.14], [0.97, 0.02, 0.01]])


@pytest.mark.parametrize(
    ("rule", "order"), [(LeastConfidence, [2, 1, 0, 3]), (Margin, [0, 2, 1, 3]), (Entropy, [1, 2, 0, 3])]
)
def test_each_rule_has_its_own_doubt(rule, order, client):
    asked = client([4, 0, 0], [1, 1, 1], 4)
    asked = replace(asked, pool={"global": ModelOutputs(torch.zeros(4, 8), P.log())})
    assert rule().select(asked).tolist() == order


def test_random_rows_come_equally_often(client):
    drawn = torch.cat([Random().select(client([5, 3], [1, 1], 2, draw=s)) for s in range(400)])
    assert stats.chisquare(drawn.bincount(minlength=8)).pvalue > 1e-3


def test_kafals_divergence_is_scipys():
    one, two = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    p, q = one.double().softmax(1).numpy(), two.double().softmax(1).numpy()
    assert np.allclose(symmetric_divergence(one, two), stats.entropy(p, q, axis=1) + stats.entropy(q, p, axis=1))
    assert symmetric_divergence(one, one).tolist() == [0.0] * 6


@pytest.mark.parametrize("counts", [[9, 1, 0], [1, 0, 9]])
def test_kafal_tilts_both_models_to_the_labels_held(counts, client):
    asked = client([12, 9, 5], counts, 26)
    tilted = []
    for w in ("global", "local"):
        share = asked.pool[w].logits.double().softmax(1).numpy() * np.maximum(counts, 1)
        tilted.append(share / share.sum(1, keepdims=True))
    p, q = tilted
    order = (-(stats.entropy(p, q, axis=1) + stats.entropy(q, p, axis=1))).argsort(kind="stable")
    assert Kafal().select(asked).tolist() == order.tolist()


def test_kafal_takes_updated_weights_where_given_and_needs_a_floor(client):
    asked = client([2, 0, 0], [1, 1, 1], 1)
    agree, zeros = ModelOutputs(torch.zeros(2, 8), torch.zeros(2, 3)), torch.zeros(3)
    first, second = torch.stack([torch.tensor([2.0, 0, 0]), zeros]), torch.stack([zeros, torch.tensor([2.0, 0, 0])])
    pool = {"global": agree, "local": ModelOutputs(agree.features, first)}
    assert Kafal().select(replace(asked, pool=pool)).tolist() == [0]
    pool["updated"] = ModelOutputs(agree.features, second)
    labelled = {**asked.labelled, "updated": asked.labelled["global"]}
    assert Kafal().select(replace(asked, pool=pool, labelled=labelled)).tolist() == [1]
    with pytest.raises(ConfigError, match="floor=0"):
        Kafal(floor=0.0)


def test_feals_entropies_are_those_of_a_dirichlet():
    alpha = evidence(torch.tensor([[-3.0, 0.5, 2.0], [0.0, 0.0, 0.0]]))
    assert alpha.tolist() == [[1, 1.5, 3], [1, 1, 1]]
    assert dirichlet_entropy(alpha).tolist() == pytest.approx([stats.dirichlet(a).entropy() for a in alpha.numpy()])
    drawn = np.random.default_rng(0).dirichlet(alpha[0].numpy(), 100_000)
    assert float(data_uncertainty(alpha)[0]) == pytest.approx(stats.entropy(drawn, axis=1).mean(), abs=3e-3)


def feal_client(client, features, **fields):
    n = len(features)
    asked = client([n, 0], [1, 1], n, **fields)
    logits = torch.stack([torch.arange(n), torch.zeros(n)], 1).float()  # evidence grows: row 0 is the most doubtful
    return replace(asked, pool={w: ModelOutputs(features, logits) for w in ("global", "local")})


def test_feal_passes_over_a_crowd_and_comes_back_to_it(client):
    crowd, apart = torch.tensor([[1.0, 0.0, 0, 0, 0, 0, 0, 0]]).repeat(4, 1), torch.eye(8)[2:6]
    asked = feal_client(client, torch.cat([crowd, apart]))
    assert Feal(neighbours=3).select(asked).tolist() == [0, 4, 5, 6, 7, 1, 2, 3]
    # with four neighbours wanted the crowd of four is none: a row has three others
    assert Feal(neighbours=4).select(asked).tolist() == list(range(8))
    assert Feal(neighbours=3, cosine=1.0).select(asked).tolist() == list(range(8))
    with pytest.raises(ConfigError, match=r"cosine=1\.5"):
        Feal(cosine=1.5)


def test_feal_multiplies_both_models_doubts(client):
    asked = client([25, 15], [1, 1], 40)
    seen, own = (evidence(asked.pool[w].logits) for w in ("global", "local"))
    width = np.array([stats.dirichlet(a).entropy() for a in seen.numpy()])
    width = (width - width.min()) / (width.max() - width.min())
    score = width * (data_uncertainty(seen) + data_uncertainty(own)).numpy()
    # no row has 40 neighbours, so none is in a crowd
    assert Feal(neighbours=40).select(asked).tolist() == (-score).argsort(kind="stable").tolist()
