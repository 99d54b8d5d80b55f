"""Coreset, badge, gcnal, logo, typiclust, ifal: rules that look at where rows lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from fedimb.errors import ConfigError
from fedimb.selection.gradient_embeddings import Factored
from fedimb.selection.queries.badge import Badge
from fedimb.selection.queries.base import Seen
from fedimb.selection.queries.centres import k_center
from fedimb.selection.queries.coreset import Coreset
from fedimb.selection.queries.gcnal import CosineGraph, Gcnal, hidden_features, step_rows
from fedimb.selection.queries.ifal import Ifal, inconsistency, otsu_threshold, sorted_distance
from fedimb.selection.queries.logo import LoGo
from fedimb.selection.queries.typiclust import TypiClust, typicality
from fedimb.selection.uncertainty import normalised_entropy


def islands(sizes, width=8, spread=0.01, seed=0):
    """Rows in tight groups far apart, and the group of each."""
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    noise = spread * torch.randn(len(group), width, generator=torch.Generator().manual_seed(seed))
    return torch.eye(width)[group] * 5 + noise, group


def at(asked, features, logits=None, labelled=None):
    """The question with these pool (and labelled) features under both models."""
    logits = torch.zeros(len(features), asked.n_classes) if logits is None else logits
    fields = {"pool": {w: Seen(features, logits) for w in ("global", "local")}}
    if labelled is not None:
        shown = Seen(labelled, torch.zeros(len(labelled), asked.n_classes))
        fields["labelled"] = dict.fromkeys(("global", "local"), shown)
    return replace(asked, **fields)


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
    sure = Seen(features, torch.zeros(30, 3))  # the local model: only where rows lie matters
    entropy = normalised_entropy(logits)
    wanted = {int((group == g).nonzero().flatten()[entropy[group == g].argmax()]) for g in range(4)}
    pool = {"global": Seen(torch.zeros(30, 8), logits), "local": sure}
    # k-means starts from rows drawn at random; from some starts it finds all four groups, and then this holds
    found = [
        set(LoGo().select(replace(client([30, 0, 0], [1, 1, 1], 4, draw=d), pool=pool)).tolist()) for d in range(30)
    ]
    assert wanted in found
    collapsed = replace(asked, pool={"global": pool["global"], "local": Seen(torch.ones(30, 8), torch.zeros(30, 3))})
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


def test_graph_products_are_those_of_the_full_affinity():
    features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    for rows in (features.relu() + 0.01, features):
        z = torch.nn.functional.normalize(rows)
        affinity = z @ z.T if (rows >= 0).all() else (1 + z @ z.T) / 2
        affinity.fill_diagonal_(0)
        full = affinity / affinity.sum(1, keepdim=True) + torch.eye(20)
        assert torch.allclose(CosineGraph(rows).spread(hidden), full @ hidden, atol=1e-5)


def test_gcnal_prefers_groups_without_labels_and_thins_a_large_pool(client):
    features, group = islands([30, 30, 30], spread=0.05)
    asked = client([90, 0], [10, 0], 6)
    labelled = features[group == 0][:10]
    chosen = Gcnal(hidden=16, steps=60).select(at(asked, features, labelled=labelled))
    assert (group[chosen] == 0).sum() <= 1
    few = Gcnal(subset=7, hidden=4, steps=1).select(at(client([90, 0], [10, 0], 6), features, labelled=labelled))
    part = torch.randperm(90, generator=torch.Generator().manual_seed(0))[:7]
    assert set(few.tolist()) <= set(part.tolist())


def test_gcnal_is_k_centre_on_what_the_network_learnt_of_the_labelled_rows(client):
    asked = client([20, 10], [6, 3], 7)
    features = torch.cat([asked.pool["global"].features, asked.labelled["global"].features])
    generator = torch.Generator().manual_seed(0)
    part = torch.randperm(30, generator=generator).sort().values
    assert torch.equal(part, torch.arange(30))
    hidden = hidden_features(features, torch.arange(39) >= 30, generator, width=8, steps=20)
    wanted = k_center(Factored.of(hidden[:30]), 7, Factored.of(hidden[30:]))
    assert torch.equal(Gcnal(hidden=8, steps=20).select(asked), wanted)


def test_the_network_learns_to_tell_labelled_rows():
    features, group = islands([15, 15, 15], spread=0.3)

    def apart(steps):
        generator = torch.Generator().manual_seed(0)  # the same initial weights
        hidden = hidden_features(features, group == 0, generator, width=16, steps=steps, lr=1e-2)
        return float((hidden[group == 0].mean(0) - hidden[group != 0].mean(0)).norm() / hidden.std())

    assert apart(60) > 1.5 * apart(1)


def test_a_part_of_the_graph_is_the_graph_of_these_rows():
    features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([3, 0, 19, 7, 8, 11, 2])
    for all_rows in (features.relu() + 0.01, features):
        own = torch.nn.functional.normalize(all_rows[rows])
        affinity = own @ own.T if (all_rows >= 0).all() else (1 + own @ own.T) / 2
        affinity.fill_diagonal_(0)
        full = affinity / affinity.sum(1, keepdim=True) + torch.eye(7)
        assert torch.allclose(CosineGraph(all_rows).part(rows).spread(hidden), full @ hidden, atol=1e-5)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
def test_a_steps_rows_are_distinct_and_hold_both_sides_in_their_shares(held, others, batch):
    if held + others <= batch:
        return
    labelled = torch.arange(held + others) < held
    rows = step_rows(labelled, batch, torch.Generator().manual_seed(0))
    assert len(rows) == len(rows.unique()) == batch
    known = int(labelled[rows].sum())
    assert abs(known - batch * held / (held + others)) <= 1
    assert (known > 0) == (held > 0)
    assert (known < batch) == (others > 0)


def test_gcnal_on_parts_of_its_graph_still_finds_what_is_not_labelled(client):
    features, group = islands([60, 30, 30], spread=0.05)
    asked, labelled = client([120, 0], [10, 0], 6), features[group == 0][:10]
    chosen = Gcnal(hidden=16, steps=60, batch=40).select(at(asked, features, labelled=labelled))
    assert (group[chosen] == 0).sum() <= 1
    small = at(client([20, 10], [6, 3], 7), features[:30], labelled=features[30:39])
    whole = Gcnal(hidden=8, steps=5, batch=None).select(small)
    again = at(client([20, 10], [6, 3], 7), features[:30], labelled=features[30:39])
    assert torch.equal(Gcnal(hidden=8, steps=5, batch=39).select(again), whole)  # a batch of all is all


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
