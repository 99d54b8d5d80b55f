import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.selection import gradient_embeddings as module
from fedimb.selection.gradient_embeddings import Factored, gradient_embeddings


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def materialised(features, logits, labels=None):
    p = logits.double().softmax(1)
    target = p.argmax(1) if labels is None else labels
    hot = torch.eye(p.shape[1], dtype=torch.float64)[target]
    return torch.einsum("nc,nd->ncd", hot - p, features.double()).flatten(1)


def test_an_embedding_is_the_heads_gradient():
    features, logits = drawn(1, 6), drawn(1, 4, seed=1)
    weight = torch.zeros(4, 6, requires_grad=True)
    torch.nn.functional.cross_entropy(logits + features @ weight.T, torch.tensor([2])).backward()
    assert torch.allclose(materialised(features, logits, torch.tensor([2])).float(), -weight.grad.flatten()[None])
    embedded = gradient_embeddings(features, logits, torch.tensor([2]))
    assert float(embedded.squared_norms) == pytest.approx(float((weight.grad**2).sum()))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(2, 5), st.integers(0, 99), st.booleans())
def test_distances_from_factors_are_those_of_the_full_embeddings(n, m, n_classes, seed, known):
    features, logits = drawn(n, 7, seed=seed), drawn(n, n_classes, seed=seed + 1)
    other, theirs = drawn(m, 7, seed=seed + 2), drawn(m, n_classes, seed=seed + 3)
    labels = torch.arange(m) % n_classes if known else None
    here, there = gradient_embeddings(features, logits), gradient_embeddings(other, theirs, labels)
    full = torch.cdist(materialised(features, logits), materialised(other, theirs, labels)) ** 2
    assert torch.allclose(here.squared_distances(there), full, atol=1e-9)
    assert torch.allclose(here.nearest(there), full.amin(1), atol=1e-9)


def test_nearest_does_not_depend_on_the_blocks(monkeypatch):
    rows, others = Factored.of(drawn(700, 3)), Factored.of(drawn(1100, 3, seed=1))
    whole = rows.squared_distances(others).amin(1)
    monkeypatch.setattr(module, "_CELLS", 512 * 9)
    assert torch.allclose(rows.nearest(others), whole, atol=1e-12)
    assert (rows.nearest(others.rows(torch.arange(0))) == torch.inf).all()


def test_rows_that_coincide_are_at_0_and_near_rows_are_not():
    row = 1000 + drawn(1, 64)
    other = row.clone()
    other[0, 0] += 0.01
    rows = Factored.of(torch.cat([row, row, other]))
    apart = rows.squared_distances(rows)
    assert apart[0, 1] == 0
    assert float(apart[0, 2]) == pytest.approx(float(((row - other).double() ** 2).sum()), rel=1e-3)


def test_factors_must_fit():
    with pytest.raises(ValueError, match="factors of one length; got \\[2, 3\\]"):
        Factored.of(drawn(2, 3), drawn(3, 3))
