"""Coreset, badge, logo, typiclust, ifal: rules that look at where rows lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from query_questions import at, islands
from scipy.stats import wasserstein_distance

from fedimb.errors import ConfigError
from fedimb.selection.queries.badge import Badge
from fedimb.selection.queries.base import ModelOutputs
from fedimb.selection.queries.coreset import Coreset
from fedimb.selection.queries.gcnal import Gcnal
from fedimb.selection.queries.ifal import Ifal, inconsistency, otsu_threshold, sorted_distance
from fedimb.selection.queries.logo import LoGo
from fedimb.selection.queries.typiclust import TypiClust, typicality
from fedimb.selection.uncertainty import normalised_entropy


def test_coreset_visits_every_group_without_labels_and_begins_where_it_is_drawn(client):
    features, group = islands([30, 6, 3, 1])
    firsts = set()
    for draw in range(12):
        chosen = Coreset().select(at(client([40, 0], [0, 0], 4, draw=draw), features))
        assert sorted(group[chosen].tolist()) == [0, 1, 2, 3]
        firsts.add(int(chosen[0]))
    assert len(firsts) > 4


def test_coreset_leaves_groups_that_are_labelled(client):
    features, group = islands([30, 6, 3, 1])
    asked = at(client([40, 0], [1, 1], 2), features, labelled=torch.eye(8)[[0, 3]] * 5)
    assert sorted(group[Coreset().select(asked)].tolist()) == [1, 2]


def test_badge_begins_with_the_longest_embedding_and_shuns_sure_rows(client):
    features, group = islands([20, 20])
    logits = torch.where(group[:, None] == 0, torch.tensor([[60.0, 0.0]]), torch.tensor([[0.1, 0.0]]))
    features[25] *= 3
    chosen = Badge().select(at(client([40, 0], [1, 1], 10), features, logits))
    assert chosen[0] == 25
    assert (group[chosen] == 0).sum() <= 1  # embeddings of sure rows all lie at 0: one stands for all


def test_logo_takes_the_least_sure_row_of_every_cluster(client):
    features, group = islands([12, 9, 6, 3])
    logits = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    asked = client([30, 0, 0], [1, 1, 1], 4)
    sure = ModelOutputs(features, torch.zeros(30, 3))  # the local model: only where rows lie matters
    entropy = normalised_entropy(logits)
    wanted = {int((group == g).nonzero().flatten()[entropy[group == g].argmax()]) for g in range(4)}
    pool = {"global": ModelOutputs(torch.zeros(30, 8), logits), "local": sure}
    # k-means starts from rows drawn at random; from some starts it finds all four groups, and then this holds
    found = [
        set(LoGo().select(replace(client([30, 0, 0], [1, 1, 1], 4, draw=d), pool=pool)).tolist()) for d in range(30)
    ]
    assert wanted in found
    collapsed = replace(
        asked, pool={"global": pool["global"], "local": ModelOutputs(torch.ones(30, 8), torch.zeros(30, 3))}
    )
    assert LoGo().select(collapsed).tolist() == entropy.argsort(descending=True)[:4].tolist()


def test_typicality_by_hand():
    rows = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert typicality(rows, 2).tolist() == pytest.approx([1 / 2, 2 / 3, 2 / 5, 2 / 10])
    assert typicality(rows, 50).tolist() == pytest.approx([3 / 11, 3 / 9, 3 / 9, 3 / 17])
    assert typicality(rows[:1], 2).tolist() == [0.0]


def test_typiclust_takes_the_middle_of_groups_without_labels_the_largest_first(client):
    features, group = islands([40, 20, 10], spread=0.3)
    middles, tops = set(), []
    for draw in range(20):
        asked = at(client([70, 0], [1, 1], 1, draw=draw), features, labelled=torch.eye(8)[[0, 0]] * 5)
        chosen = TypiClust(clusters=3).select(asked)
        if group[chosen] == 1:
            middles.add(int(chosen))
        tops.append(int(group[chosen]))
    assert tops.count(0) < 10  # group 0 is the largest, and labelled (k-means may split it now and then)
    unit = torch.nn.functional.normalize(features[group == 1])
    assert int((group == 1).nonzero()[typicality(unit, 20).argmax()]) in middles


def test_ifals_distance_is_scipys_on_the_entries_as_samples():
    p, q = torch.rand(2, 9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = [wasserstein_distance(a, b) for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    assert np.allclose(sorted_distance(p, q), theirs)
    assert float(sorted_distance(p, p.flip(1)).max()) == 0  # blind to which class is which


def test_ifals_inconsistency_by_hand():
    one, two = torch.tensor([0.2, 0.1, 0.0, 0.0]), torch.tensor([0.1, 0.4, 0.0, 0.3])
    found = inconsistency(one, two)
    assert found[:3].tolist() == pytest.approx([2 * 0.3, 4 * 0.5, 0.0])
    assert found[1] < found[3] < torch.inf


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30))
def test_otsu_parts_with_the_largest_variance_between(values):
    ordered = np.sort(np.array(values, np.float64))
    threshold = otsu_threshold(torch.tensor(values, dtype=torch.float32))

    def between(t):
        low, high = ordered[ordered <= t], ordered[ordered > t]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    assert between(threshold) == pytest.approx(max(between(t) for t in ordered))
    assert threshold in values


def votes_by_hand(pool, labelled, says, neighbours, n_classes):
    """Each of all rows votes, one at a time, for its nearest pool rows but itself."""
    rows = torch.nn.functional.normalize(torch.cat([pool, labelled]).double())
    votes = np.ones((len(pool), n_classes))
    for i, row in enumerate(rows):
        similar = (rows[: len(pool)] @ row).numpy()
        others = [j for j in np.argsort(-similar, kind="stable") if j != i]
        for j in others[:neighbours]:
            votes[j, says[i]] += 1
    return votes / votes.sum(1, keepdims=True)


def test_ifals_votes_and_score(client):
    asked = client([25, 10, 5], [4, 2, 1], 12)
    rule, n = Ifal(neighbours=3), asked.size
    everyone = torch.arange(n + len(asked.labels))
    votes = {}
    for w in ("global", "local"):
        says = torch.cat([asked.pool[w].logits.argmax(1), asked.labels]).tolist()
        votes[w] = votes_by_hand(asked.pool[w].features, asked.labelled[w].features, says, 3, 3)
        assert np.allclose(rule._votes(asked, w, everyone), votes[w])
    apart = np.array([wasserstein_distance(a, b) for a, b in zip(votes["global"], votes["local"], strict=True)])
    soft = asked.pool["local"].logits.double().softmax(1).numpy()
    score = apart * [wasserstein_distance(a, b) for a, b in zip(votes["local"], soft, strict=True)]
    survivors = set(np.flatnonzero(score > otsu_threshold(torch.tensor(score))).tolist())
    few = min(3, len(survivors))
    assert few > 0
    assert set(Ifal(neighbours=3).select(replace(asked, budget=few)).tolist()) <= survivors


def test_ifal_falls_back_to_the_top_scores_and_reads_updated_weights_where_given(client):
    asked = client([25, 10, 5], [4, 2, 1], 39)
    assert len(Ifal().select(asked)) == 39  # more than any threshold leaves
    other = client([25, 10, 5], [4, 2, 1], 39, seed=4)
    views = {view: {**getattr(asked, view), "updated": getattr(other, view)["local"]} for view in ("pool", "labelled")}
    one, two = client([25, 10, 5], [4, 2, 1], 5), replace(client([25, 10, 5], [4, 2, 1], 5), **views)
    assert Ifal(neighbours=3).select(one).tolist() != Ifal(neighbours=3).select(two).tolist()


@pytest.mark.parametrize(
    ("rule", "key"),
    [(Gcnal, "subset"), (LoGo, "passes"), (TypiClust, "clusters"), (Ifal, "voters"), (Ifal, "neighbours")],
)
def test_arguments_below_1_are_refused(rule, key):
    with pytest.raises(ConfigError, match=f"{key}=0: give a finite number of at least 1"):
        rule(**{key: 0})
