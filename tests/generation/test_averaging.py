"""A rare class keeps its row when few clients hold it: the averaging, AdamW's groups, and both on real generators."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedimb.errors import ConfigError, DataError
from fedimb.generation.averaging import average
from fedimb.generation.base import Generator
from fedimb.generation.training import Training, groups, train_generator
from tests.generation.generator_cases import build, examples, shape_of

ROWS = {"emb": 2}, {"dom": 1}


def states(*values):
    """One state per value, all its entries that value."""
    return [
        {
            "w": np.full((2, 2), v, np.float32),
            "emb": np.full((3, 2), v, np.float32),
            "dom": np.full((2, 4), v, np.float32),
            "n": np.array(v, np.int64),
        }
        for v in values
    ]


def test_class_rows_are_weighted_by_holders_and_everything_else_by_rows():
    merged = average(states(1.0, 3.0, 8.0), [[1, 3], [0, 4], [8, 0]], [[0], [1], [3]], *ROWS)
    assert np.allclose(merged["w"], (4 * 1 + 4 * 3 + 8 * 8) / 16)
    assert np.allclose(merged["emb"][0], (1 * 1 + 8 * 8) / 9)
    assert np.allclose(merged["emb"][1], (3 * 1 + 4 * 3) / 7)
    assert np.allclose(merged["emb"][2], merged["w"][0, 0]), "the row for 'not said' goes by all rows"
    assert np.allclose(merged["dom"][0], (1 * 3 + 3 * 8) / 4)
    assert np.allclose(merged["dom"][1], merged["w"][0, 0])
    assert merged["emb"].dtype == np.float32
    assert merged["n"].dtype == np.int64
    assert merged["n"] == round((4 + 12 + 64) / 16)


def test_a_row_that_nobody_holds_stays_as_it_was_sent_out_bit_by_bit():
    sent = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    clients = [{"emb": sent.copy(), "dom": np.ones((2, 1), np.float32)} for _ in range(7)]
    for k, client in enumerate(clients):
        client["emb"][1] += k
    merged = average(clients, [[0, 3]] * 7, [[3]] * 7, *ROWS)
    assert np.array_equal(merged["emb"][0], sent[0])
    assert np.allclose(merged["emb"][1], sent[1] + 3)
    moved = average(states(1.0, 2.0), [[0, 1], [0, 9]], [[0], [0]], *ROWS)
    assert np.allclose(moved["emb"][0], 1.5), "plain mean where they differ all the same"


@given(
    st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=6)
)
def test_every_entry_lies_between_those_of_its_holders_and_matches_numpy(clients):
    values = [c[0] for c in clients]
    counts = [[c[1], c[2]] for c in clients]
    merged = average(states(*values), counts, [[sum(row)] for row in counts], *ROWS)
    for row in range(2):
        weights = [c[row] for c in counts]
        held = [v for v, n in zip(values, weights, strict=True) if n] or values
        assert min(held) - 1e-4 <= merged["emb"][row, 0] <= max(held) + 1e-4
        if any(weights):
            assert merged["emb"][row, 0] == pytest.approx(np.average(values, weights=weights), abs=1e-4)


def test_one_client_gives_back_its_own():
    only = states(0.1)
    merged = average(only, [[5, 0]], [[5]], *ROWS)
    assert all(np.array_equal(merged[key], only[0][key]) for key in only[0])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"states": []}, ConfigError, "no generators"),
        ({"class_counts": [[1, 1]]}, ConfigError, "class counts"),
        ({"domain_counts": [[1], [-1]]}, DataError, "domain counts hold a negative"),
        ({"class_counts": [[1, 1], [0, 0]]}, DataError, "client 1 of 2 trained its generator on no rows"),
        ({"class_counts": [[1, 1, 1]] * 2}, ConfigError, "'emb' is to have 2 class rows"),
        ({"class_rows": {"other": 2}}, ConfigError, "'other'"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, says):
    args = {"states": states(1.0, 2.0), "class_counts": [[1, 1]] * 2, "domain_counts": [[2]] * 2}
    args |= {"class_rows": ROWS[0], "domain_rows": ROWS[1]}
    with pytest.raises(error, match=says):
        average(**(args | change))


def test_clients_that_differ_or_diverged_are_named():
    odd, lost = states(1.0, 2.0), states(1.0, 2.0)
    odd[1]["w"] = odd[1]["w"][:1]
    lost[1]["emb"][0, 0] = np.nan
    for wrong, says in ((odd, "client 1's generator has other"), (lost, "client 1's generator is not finite in 'emb'")):
        with pytest.raises(DataError, match=says):
            average(wrong, [[1, 1]] * 2, [[2]] * 2, *ROWS)


class Rows(Generator):
    """Two class rows that want to be 1, and nothing else."""

    def __init__(self):
        super().__init__(2, 1, (1,))
        self.emb = nn.Embedding(3, 1)
        nn.init.constant_(self.emb.weight, 0.2)

    def class_rows(self):
        return {"emb.weight": 2}

    def domain_rows(self):
        return {}


def recursion(holders, optimiser_of, merge, clients=10, rounds=20, local=5):
    """Row 0 after federated training in which the first ``holders`` clients have class 0, and all have class 1."""
    weight = Rows().state_dict()["emb.weight"].numpy()
    for _ in range(rounds):
        replies = []
        for held in (1.0, 0.0):  # those who hold class 0 all answer alike, and so do the others
            model = Rows()
            model.emb.weight.data = torch.from_numpy(weight.copy())
            optimiser = optimiser_of(model)
            for _ in range(local):
                optimiser.zero_grad()
                (torch.tensor([held, 1.0, 0.0]) * (model.emb.weight[:, 0] - 1).square()).sum().backward()
                optimiser.step()
            replies.append({"emb.weight": model.emb.weight.detach().numpy()})
        replies = [replies[k >= holders] for k in range(clients)]
        weight = merge(replies, [[30 * (k < holders), 10] for k in range(clients)])
    return float(weight[0, 0])


def ours(replies, counts):
    return average(replies, counts, [[1]] * len(counts), Rows().class_rows(), {})["emb.weight"]


def plain(replies, counts):
    return np.mean([reply["emb.weight"] for reply in replies], axis=0)


def test_a_class_row_held_by_two_of_ten_clients_does_not_shrink_to_zero():
    """Long-tail evidence, finding 5: Adam with coupled decay and plain averaging bring it to 0."""

    def adamw(model):
        return torch.optim.AdamW(groups(model, 0.1), lr=0.02)

    def coupled(model):
        return torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=0.1)

    assert recursion(2, adamw, ours) == pytest.approx(1, abs=0.1)
    assert recursion(10, adamw, ours) == pytest.approx(recursion(2, adamw, ours), abs=1e-6)
    assert recursion(2, coupled, plain) == pytest.approx(0, abs=0.1), "the case this guards against"


@pytest.mark.parametrize("name", ["flow", "table_flow"])
def test_a_generator_keeps_the_class_that_one_of_two_clients_holds(name):
    """Each round moves the class's row as far as its holder moved it; the plain mean, half as far."""
    shape, training = shape_of(name), Training(steps=6, batch=8, lr=0.02, warmup=1, weight_decay=0.5, ema=0.5)
    data = examples(shape, (4, 0)), examples(shape, (0, 4), seed=1)
    clients = [build(name, n_classes=2) for _ in data]
    sent = {key: value.numpy().copy() for key, value in clients[0].state_dict().items() if key.startswith("net")}
    for seed, (client, own) in enumerate(zip(clients, data, strict=True)):
        client.fit_scale(data[0])
        train_generator(client, own, training, seed)
    replies = [{key: value.numpy() for key, value in client.state_dict().items()} for client in clients]
    merged = average(replies, [[4, 0], [0, 4]], [[2, 2]] * 2, clients[0].class_rows(), clients[0].domain_rows())
    key = "net.class_embedding.weight"
    for c in range(2):
        holder, other = replies[c][key][c], replies[1 - c][key][c]
        assert np.array_equal(merged[key][c], holder), "the holder's row, whole"
        assert np.array_equal(other, sent[key][c]), "no decay moved it where nobody trained it"
        assert np.abs(holder - sent[key][c]).max() > 1e-3
    assert np.allclose(merged[key][2], (replies[0][key][2] + replies[1][key][2]) / 2)
    assert merged["class_seen"].tolist() == [1, 1, 1]
    assert (merged["cell_seen"][:2, :2] > 0).all()
    assert not merged["cell_seen"][2:].any()
    both = build(name, n_classes=2)
    both.load_state_dict({key: torch.from_numpy(value) for key, value in merged.items()})
    asked = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert both.sample(*asked, torch.Generator().manual_seed(0)).shape[0] == 2


def test_a_row_that_no_client_of_the_round_holds_stays_as_the_server_has_it():
    server = states(7.0)[0]
    merged = average(states(1.0, 2.0), [[0, 1], [0, 9]], [[0], [3]], *ROWS, before=server)
    assert np.array_equal(merged["emb"][0], server["emb"][0]), "clients were sent another row in its place"
    assert np.allclose(merged["emb"][1], 1.9)
    assert np.allclose(merged["dom"][0], 2.0)
    assert np.allclose(merged["w"], 1.9)
