"""CoreGCN: its graph, whole and in part, what the network learns, and what is chosen."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from query_questions import at, islands

from fedimb.selection.gradient_embeddings import Factored
from fedimb.selection.queries.centres import k_center
from fedimb.selection.queries.gcnal import CosineGraph, Gcnal, hidden_features, step_rows


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
