import pytest
import torch
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.proximal import Proximal
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


@pytest.mark.parametrize("mu", [0.0, 0.3, 2.0])
def test_training_minimises_cross_entropy_plus_half_mu_times_the_squared_drift(mu):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)
    ours = MLP(n_classes=3, input_shape=(4,), hidden=[5])
    theirs = MLP(n_classes=3, input_shape=(4,), hidden=[5])
    theirs.load_state_dict(ours.state_dict())
    start = [p.detach().clone() for p in theirs.parameters()]
    local = TrainSpec("train", 5, 6, "sgd", 0.2, 0.9, 0.01, CrossEntropy(), Shuffle(), (Proximal(mu),))
    train_locally(ours, x, y, local, generator)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        drift = sum(((p - s) ** 2).sum() for p, s in zip(theirs.parameters(), start, strict=True))
        (cross_entropy(theirs(x), y) + mu / 2 * drift).backward()
        optimizer.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, reference, atol=1e-6)


def test_a_larger_mu_stays_nearer_the_received_weights():
    distances = []
    for mu in (0.0, 1.0, 4.0):
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(12, 4, generator=generator), torch.randint(3, (12,), generator=generator)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = MLP(n_classes=3, input_shape=(4,), hidden=[5])
        start = [p.detach().clone() for p in model.parameters()]
        local = TrainSpec("train", 30, 12, "sgd", 0.1, 0.0, 0.0, CrossEntropy(), Shuffle(), (Proximal(mu),))
        train_locally(model, x, y, local, generator)
        distances.append(
            float(sum(((p.detach() - s) ** 2).sum() for p, s in zip(model.parameters(), start, strict=True)))
        )
    assert distances[0] > distances[1] > distances[2] > 0


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_a_mu_that_is_no_strength_is_refused(mu):
    with pytest.raises(ConfigError, match="mu must be"):
        Proximal(mu)
