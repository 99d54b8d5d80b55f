import copy

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from torch.nn.functional import cosine_similarity, cross_entropy

from fedimb.errors import ConfigError
from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.moon import Moon
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


def drawn(seed=0):
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MLP(n_classes=3, input_shape=(4,), hidden=[6])
    return model, torch.randn(9, 4, generator=generator), torch.randint(3, (9,), generator=generator)


def message(model="global", resets=0):
    return RecordDict({"x.fedimb": ConfigRecord({"model": model, "resets": resets})})


def visit(model, x, y, state, mu=2.0, content=None, lr=0.3):
    """One round at a client, as the client runtime plays it."""
    term = Moon(mu, temperature=0.5)
    term.receive(content or message(), state)
    spec = TrainSpec("train", 4, 9, "sgd", lr, 0.0, 0.0, CrossEntropy(), Shuffle(), (term,))
    result = train_locally(model, x, y, spec, torch.Generator().manual_seed(0))
    term.keep(state)
    return result


def test_the_first_round_is_plain_and_the_second_contrasts_received_and_previous_features():
    (model, x, y), state = drawn(), RecordDict()
    plain = copy.deepcopy(model)
    visit(model, x, y, state)
    visit(plain, x, y, RecordDict(), mu=0.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))

    previous, received = copy.deepcopy(model), drawn(seed=5)[0]
    ours, theirs = copy.deepcopy(received), copy.deepcopy(received)
    assert visit(ours, x, y, state).records == {}
    for _ in range(4):
        z = theirs.features(x)
        similarities = [cosine_similarity(z, m.features(x).detach(), dim=1) / 0.5 for m in (received, previous)]
        positive = torch.zeros(len(x), dtype=torch.int64)
        contrast = cross_entropy(torch.stack(similarities, dim=1), positive)
        parameters = list(theirs.parameters())
        gradients = torch.autograd.grad(cross_entropy(theirs(x), y) + 2.0 * contrast, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.3 * gradient
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, reference, atol=1e-5)


def test_the_state_is_the_last_trained_model_alone():
    (model, x, y), state = drawn(), RecordDict()
    for _ in range(3):
        visit(model, x, y, state)
    (record,) = state.values()
    assert {k: torch.from_numpy(v.numpy()) for k, v in record.items()}.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(torch.from_numpy(record[k].numpy()), p) for k, p in model.named_parameters())


def test_after_a_reset_the_previous_model_is_forgotten_and_other_models_are_kept():
    (model, x, y), state = drawn(), RecordDict()
    visit(model, x, y, state)
    visit(model, x, y, state, content=message("other"))
    assert len(state) == 2
    fresh, plain = drawn(seed=3)[0], drawn(seed=3)[0]
    visit(fresh, x, y, state, content=message(resets=1))
    visit(plain, x, y, RecordDict(), mu=0.0)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), plain.parameters(), strict=True))
    assert sorted(state) == ["term.moon/global/1", "term.moon/other/0"]


def test_a_diverged_model_is_not_kept():
    (model, x, y), state = drawn(), RecordDict()
    visit(model, x * 1e30, y, state, lr=1e30)
    assert not all(torch.isfinite(p).all() for p in model.parameters())
    assert len(state) == 0


@pytest.mark.parametrize("wrong", [{"mu": -1.0}, {"mu": float("inf")}, {"temperature": 0.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"moon.*must be"):
        Moon(**wrong)
