"""FedDyn's local objective: the reference file's values, its state, and that both halves find the optimum."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import nn

from fedimb.aggregators.feddyn import FedDyn
from fedimb.aggregators.server_optimizer import Clients
from fedimb.errors import ConfigError, FedimbError
from fedimb.training.objectives.dynamic_regularizer import DynamicRegularizer

FILE = json.loads((Path(__file__).parents[2] / "literature" / "reference" / "feddyn.json").read_text())
GIVEN, RIGHT, NEAR = FILE["inputs"], FILE["outputs"], {"rtol": 0, "atol": FILE["tolerance"]}


class Weights(nn.Module):
    """One parameter, float64."""

    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(np.array(values), dtype=torch.float64))


def message(since=1, resets=0):
    step = ConfigRecord({"model": "global", "resets": resets})
    return RecordDict({"config": ConfigRecord({"optimizer-since": since}), "x.fedimb": step})


def move(term, state, start, end, content=None):
    """One round of one client: from the received weights to where training is said to end."""
    model = Weights(start)
    term.receive(message() if content is None else content, state)
    term.setup(model, list(model.parameters()))
    with torch.no_grad():
        model.w.copy_(torch.tensor(np.array(end)))
    assert term.after(model, 1) == {}
    term.keep(state)


def kept(state):
    (name,) = state
    return state[name]["w"].numpy()


@pytest.mark.parametrize("client", [0, 1, 2])
def test_the_clients_state_is_the_references(client):
    state = RecordDict()
    move(DynamicRegularizer(GIVEN["alpha"]), state, GIVEN["server_weights"], GIVEN["client_weights_round1"][client])
    np.testing.assert_allclose(kept(state), RIGHT["client_state"][client], **NEAR)


def test_the_added_gradient_is_the_references():
    state, term = RecordDict(), DynamicRegularizer(GIVEN["alpha"])
    move(term, state, GIVEN["server_weights"], GIVEN["client_weights_round1"][0])
    again = DynamicRegularizer(GIVEN["alpha"])
    again.receive(message(), state)
    model = Weights(GIVEN["received_for_term"])
    again.setup(model, list(model.parameters()))
    gradients = [torch.zeros(6, dtype=torch.float64)]
    again.on_gradients([torch.tensor(np.array(GIVEN["point"]))], gradients)
    np.testing.assert_allclose(gradients[0].numpy(), RIGHT["added_gradient"], **NEAR)


def test_a_long_gradient_is_cut_to_the_norm_allowed_with_what_is_added():
    term, model = DynamicRegularizer(1.0, max_norm=2.0), Weights([0.0, 0.0])
    term.receive(message(), RecordDict())
    term.setup(model, list(model.parameters()))
    gradients = [torch.tensor([300.0, 0.0], dtype=torch.float64)]
    term.on_gradients([torch.tensor([0.0, 400.0], dtype=torch.float64)], gradients)
    np.testing.assert_allclose(gradients[0].numpy(), [1.2, 1.6])


def test_state_of_an_optimizer_that_began_anew_is_forgotten():
    state = RecordDict()
    move(DynamicRegularizer(0.1), state, [0.0, 0.0], [1.0, 2.0])
    move(DynamicRegularizer(0.1), state, [0.0, 0.0], [1.0, 0.0], message(since=4, resets=1))
    np.testing.assert_allclose(kept(state), [-0.1, 0.0])
    # A reset of another model is none of this one's.
    move(DynamicRegularizer(0.1), state, [0.0, 0.0], [1.0, 0.0], message(since=4, resets=2))
    np.testing.assert_allclose(kept(state), [-0.2, 0.0])


def test_a_client_that_diverged_keeps_what_it_had():
    state = RecordDict()
    move(DynamicRegularizer(0.1), state, [0.0, 0.0], [1.0, 2.0])
    move(DynamicRegularizer(0.1), state, [0.0, 0.0], [np.inf, 0.0])
    np.testing.assert_allclose(kept(state), [-0.1, -0.2])


def test_without_feddyn_at_the_server_it_says_so():
    with pytest.raises(FedimbError, match="use aggregator=feddyn"):
        DynamicRegularizer(0.1).receive(RecordDict({"config": ConfigRecord({})}), RecordDict())


@pytest.mark.parametrize(("alpha", "norm"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.0)])
def test_settings_without_a_meaning_are_refused(alpha, norm):
    with pytest.raises(ConfigError, match="must be > 0"):
        DynamicRegularizer(alpha, norm)


def test_both_halves_find_the_optimum_of_clients_that_disagree():
    curvature, centre = np.array([[1.0, 4.0], [5.0, 1.0], [2.0, 0.5]]), np.array([[1.0, 0.0], [-2.0, 3.0], [0.0, -1.0]])
    optimum = (curvature * centre).sum(0) / curvature.sum(0)
    left = {}
    for name in ("feddyn", "fedavg"):
        server, state, states = FedDyn(3, 1.0), {}, [RecordDict() for _ in range(3)]
        weights = {"w": np.zeros(2)}
        for _ in range(60):
            trained = []
            for k in range(3):
                model, term = Weights(weights["w"]), DynamicRegularizer(1.0)
                term.receive(message(), states[k])
                term.setup(model, [model.w])
                for _ in range(50):
                    gradient = [torch.tensor(curvature[k]) * (model.w.detach() - torch.tensor(centre[k]))]
                    if name == "feddyn":
                        term.on_gradients([model.w.detach()], gradient)
                    model.w.data -= 0.1 * gradient[0]
                term.after(model, 50)
                term.keep(states[k])
                trained.append(model.w.detach().numpy() - weights["w"])
            mean = {"w": np.mean(trained, axis=0)}
            if name == "feddyn":
                weights = dict(
                    server.aggregate(weights, mean, Clients({"client": np.arange(3)}, {"uniform": mean}), state)
                )
            else:
                weights = {"w": weights["w"] + mean["w"]}
        left[name] = np.linalg.norm(weights["w"] - optimum)
    assert left["fedavg"] > 0.1
    assert left["feddyn"] < 1e-3
