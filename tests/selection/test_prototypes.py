import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from fedimb.selection.prototypes import class_prototypes, prototype_sums, pseudo_labels, shared_prototypes, unit


def drawn(n, seed=0, d=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_prototype_is_the_mean_direction_not_the_mean_row():
    features = torch.tensor([[100.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    found = class_prototypes(features, torch.tensor([1, 1, 2]), 4)
    assert torch.allclose(found[1], torch.tensor([0.5, 0.5]).sqrt())  # the long row weighs no more
    assert torch.allclose(found[2], torch.tensor([0.6, 0.8]))
    assert found[[0, 3]].isnan().all()


def test_rows_that_cancel_have_no_prototype_nor_have_zeros():
    features = torch.tensor([[0.3, 0.1], [-0.3, -0.1], [0.0, 0.0]])
    assert class_prototypes(features, torch.tensor([0, 0, 1]), 2).isnan().all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 50))
def test_shared_prototypes_are_those_of_all_rows_together(m, k, seed):
    features, labels = drawn(m + k, seed), torch.randint(3, (m + k,), generator=torch.Generator().manual_seed(seed))
    parts = [prototype_sums(features[s], labels[s], 3) for s in (slice(0, m), slice(m, None))]
    together = class_prototypes(features, labels, 3)
    assert torch.allclose(shared_prototypes(torch.stack(parts)), together, atol=1e-6, equal_nan=True)


def test_pseudo_labels_are_the_nearest_by_cosine_among_classes_with_rows():
    features, labelled = drawn(40, 1), drawn(12, 2)
    labels = torch.tensor([0, 2, 5] * 4)  # 1, 3, 4 absent
    prototypes = class_prototypes(labelled, labels, 6)
    have = [0, 2, 5]
    similar = cosine_similarity(features.numpy(), prototypes[have].numpy())
    assert pseudo_labels(features, prototypes).tolist() == [have[i] for i in similar.argmax(1)]
    assert torch.equal(pseudo_labels(features, prototypes), pseudo_labels(9 * features, prototypes))


def test_without_any_prototype_no_row_has_a_label():
    nothing = class_prototypes(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), 3)
    assert nothing.isnan().all()
    assert pseudo_labels(drawn(4), nothing).tolist() == [-1] * 4
    assert pseudo_labels(drawn(0), nothing).shape == (0,)


def test_unit_rows():
    rows = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
