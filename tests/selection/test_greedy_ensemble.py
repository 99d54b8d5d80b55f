"""Greedy ensemble selection against brute force: every pick, and the best of all ensembles of three models."""

from itertools import combinations_with_replacement

import pytest
import torch

from fedimb.selection.greedy_ensemble import _score, select_greedily

SCORES = ("macro_recall", "macro_f1", "log_loss")


def models(seed, k=3, n=30, c=4):
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(c, (n,), generator=draw)
    logits = torch.randn(k, n, c, generator=draw) + 1.5 * torch.nn.functional.one_hot(y, c)
    return logits.softmax(dim=2), y


def of(picked, said, y, score, penalty):
    """(score less penalty, -log loss) of the ensemble of these picks, from scratch."""
    mean = said[list(picked)].double().mean(dim=0)
    plain, loss = _score(mean, y, score)
    shares = [picked.count(k) / len(picked) for k in range(len(said))]
    return plain - penalty * sum(share**2 for share in shares), -loss


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("penalty", [0.0, 0.05])
def test_each_pick_is_the_best_of_all_and_the_best_ensemble_on_the_way_is_kept(score, penalty):
    for seed in range(3):
        said, y = models(seed)
        path, best = [], None
        for _ in range(6):
            found = [of([*path, k], said, y, score, penalty) for k in range(3)]
            path.append(max(range(3), key=lambda k: (round(found[k][0], 9), found[k][1])))
            here = of(path, said, y, score, penalty)
            if best is None or here > best[0]:
                best = here, list(path)
        chosen = select_greedily(said, y, 6, score, penalty)
        assert chosen.counts.tolist() == [best[1].count(k) for k in range(3)]
        assert chosen.score == pytest.approx(of(best[1], said, y, score, 0.0)[0])


@pytest.mark.parametrize("score", SCORES)
def test_the_best_of_all_ensembles_of_three_models(score):
    """Greedy selection is no search over all: here it is never below the best model and never above the optimum, and
    by log loss, which is concave in the weights, it is the optimum of all ensembles of up to 4 picks, or within 1 %."""
    for seed in range(4):
        said, y = models(seed)
        every = [p for m in range(1, 5) for p in combinations_with_replacement(range(3), m)]
        optimum = max(of(list(p), said, y, score, 0.0)[0] for p in every)
        chosen = select_greedily(said, y, 4, score)
        assert chosen.best_alone == pytest.approx(max(of([k], said, y, score, 0.0)[0] for k in range(3)))
        assert chosen.best_alone - 1e-12 <= chosen.score <= optimum + 1e-12
        if score == "log_loss":
            assert chosen.score == pytest.approx(optimum, rel=0.01)


def test_two_models_that_know_different_classes_and_one_that_knows_none():
    y = torch.tensor([0, 1, 2, 3])
    unsure = torch.full((4, 4), 0.25)
    first, second = unsure.clone(), unsure.clone()
    first[:2] = torch.eye(4)[:2]
    second[2:] = torch.eye(4)[2:]
    wrong = torch.eye(4)[[1, 0, 3, 2]]
    chosen = select_greedily(torch.stack([first, wrong, second]), y, 10)
    assert chosen.counts.tolist() == [1, 0, 1]
    assert chosen.score == 1.0
    assert chosen.best_alone == 0.75  # unsure rows are said to be of the first class
