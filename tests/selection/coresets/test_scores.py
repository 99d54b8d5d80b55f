"""The rules that keep the highest score: EL2N, GraNd, forgetting."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.selection.coresets.base import Candidates
from fedimb.selection.coresets.el2n import EL2N, error_length
from fedimb.selection.coresets.forgetting import Forgetting, forgetting_events
from fedimb.selection.coresets.grand import GraNd

N, C, E = 30, 4, 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


HISTORY = torch.randn(E, N, C, generator=generator()).softmax(2)
LABELS = torch.randint(C, (N,), generator=generator(1))
FEATURES = torch.randn(N, 7, generator=generator(2))
LOGITS = torch.randn(N, C, generator=generator(3))


def given():
    return Candidates(LABELS, C, generator(4), features=FEATURES, logits=LOGITS, history=HISTORY)


def test_el2n_is_the_mean_length_of_the_error_vector():
    p, onehot = HISTORY.numpy(), np.eye(C)[LABELS.numpy()]
    wanted = np.sqrt(((p - onehot) ** 2).sum(2)).mean(0)
    assert np.allclose(error_length(HISTORY, LABELS), wanted, atol=1e-6)
    kept = EL2N().select(given(), 10)
    assert set(kept.tolist()) == set(np.argsort(-wanted)[:10].tolist())


def test_el2n_may_stop_after_the_first_epochs():
    early = EL2N(epochs=2).score(given(), torch.arange(N))
    assert torch.allclose(early, error_length(HISTORY[:2], LABELS))
    assert not torch.allclose(early, error_length(HISTORY, LABELS))
    with pytest.raises(ConfigError, match="epochs=0"):
        EL2N(epochs=0)


def test_grand_is_the_length_of_the_gradient_autograd_finds():
    head = torch.nn.Linear(7, C)
    logits = head(FEATURES)
    lengths = []
    for i in range(N):
        loss = torch.nn.functional.cross_entropy(logits[i : i + 1], LABELS[i : i + 1])
        gradients = torch.autograd.grad(loss, [head.weight, head.bias], retain_graph=True)
        lengths.append(torch.cat([g.flatten() for g in gradients]).norm())
    score = GraNd(probabilities="final").score(
        Candidates(LABELS, C, generator(), features=FEATURES, logits=logits.detach()), torch.arange(N)
    )
    assert torch.allclose(score, torch.stack(lengths), atol=1e-5)


def test_grand_of_the_history_weighs_el2n_with_the_features_length():
    score = GraNd().score(given(), torch.arange(N))
    assert torch.allclose(score, error_length(HISTORY, LABELS) * (FEATURES.norm(dim=1) ** 2 + 1).sqrt(), atol=1e-5)


def test_forgetting_counts_right_to_wrong_and_puts_the_never_right_first():
    right = torch.tensor([[1, 0, 1, 0, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]])
    history = torch.stack([1 - right.float(), right.float()], dim=2).transpose(0, 1)  # class 1 is the label
    labels = torch.ones(5, dtype=torch.int64)
    assert forgetting_events(history, labels).tolist() == [2, 1, 0, torch.inf, 0]
    rows = Candidates(labels, 2, generator(), history=history)
    assert Forgetting().select(rows, 2).tolist() == [0, 3]
    assert Forgetting(never_learned_first=False).select(rows, 2).tolist() == [0, 1]


def test_equally_forgotten_rows_are_drawn_not_taken_from_the_front():
    labels = torch.zeros(400, dtype=torch.int64)
    rows = Candidates(labels, 1, generator(), history=torch.ones(3, 400, 1))
    kept = Forgetting().select(rows, 200)
    assert 70 < int((kept < 200).sum()) < 130
