"""FedSSG's generator of all clients: who teaches it what, what travels, who votes on what, and what stops it."""

import json
import re

import numpy as np
import pytest
import torch
from fedssg_runs import metrics_of, report_of
from small_runs import launch_in

from fedimb.clients.fedssg import FedSSGClient
from fedimb.errors import DataError, RunFailed
from fedimb.generation.examples import REFUSE
from fedimb.generation.export import split_holdout
from fedimb.generation.federated import LEAST_VOTED
from fedimb.generation.generators.table_flow import TableFlow
from fedimb.records import arrays_of
from fedimb.strategies import fedssg_pools

WORDS = (
    *("data=synthetic_table", "data.source.rows=1500", "data.imbalance_factor=12", "data.n_max=null", "engine=inline"),
    *("clients.count=3", "partition.alpha=0.7", "local.lr=0.1", "rounds=1", "seed=3", "strategy=fedssg"),
    *("strategy.fedssg.source=fed_diffusion", "strategy.fedssg.rounds=2", "strategy.fedssg.local_steps=4"),
    *("strategy.fedssg.pretrain=0", "strategy.fedssg.screen=false", "strategy.fedssg.holdout=0.4"),
)
ROW = "net.class_embedding.weight"
HARMLESS = ("strategy.fedssg.audit={power: 0.01, copied: 0.99, draws: 2, bootstrap: 5}",)
"""A gate that lets everything pass that is taught at all: what is tested is who is asked."""


class Wire:
    """What passed between server and clients in a run, and when the server drew samples."""

    def __init__(self, monkeypatch) -> None:
        self.asked, self.rows, self.events = [], {}, []
        query, sample, split = FedSSGClient.query, TableFlow.sample, split_holdout

        def spied(client, name, content, context):
            self.events.append(name)
            reply = query(client, name, content, context)
            self.events.append(f"end {name}")
            self.asked.append((name, context.client, content, reply))
            return reply

        def drawn(generator, y, d, rng, progress=None):
            self.events.append("drawn")
            return sample(generator, y, d, rng, progress)

        monkeypatch.setattr(FedSSGClient, "query", spied)
        monkeypatch.setattr(TableFlow, "sample", drawn)
        monkeypatch.setattr("fedimb.clients.fedssg.split_holdout", lambda *args: self._keep(split(*args)))

    def _keep(self, rows):
        self.rows[len(rows.learned)] = rows
        return rows

    def of(self, name):
        """(client, message, reply) of every query of the name."""
        return [(client, content, reply) for asked, client, content, reply in self.asked if asked == name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which every message is known."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        wire = Wire(monkeypatch)
        words = (*WORDS, *HARMLESS, "strategy.fedssg.encoder={name: pca, dims: 2}")
        result = launch_in(tmp_path_factory.mktemp("federated"), *words)
    return result, wire


def counts_of(wire):
    """[K, C] rows of each client, as reported."""
    return np.stack(
        [arrays_of(reply, "x.coverage")["counts"].sum(axis=1) for _, _, reply in wire.of("fedssg_coverage")]
    )


def test_a_class_of_few_rows_teaches_nothing_and_its_row_stays_as_everybody_has_it(run):
    _, wire = run
    counts = counts_of(wire)
    assert ((counts > 0) & (counts < REFUSE)).any(), "a client with a few rows of a class is what this is about"
    first = arrays_of(wire.of("fedssg_teach")[0][1], "x.generator")
    for client, _, reply in wire.of("fedssg_teach"):
        taught, state = arrays_of(reply, "x.taught"), arrays_of(reply, "x.generator")
        few = taught["classes"] == 0
        assert few[counts[client] < REFUSE].all()
        assert (taught["classes"][~few] >= REFUSE).all()
        np.testing.assert_array_equal(state[ROW][:-1][few], first[ROW][:-1][few])
        assert not state["class_seen"][:-1][few].any()
        assert not state["cell_seen"][:-1][few].any()


def test_a_client_is_sent_the_rows_it_has_taught_and_no_others(run):
    _, wire = run
    sent = {client: [] for client in range(3)}
    taught = {}
    for client, message, reply in wire.of("fedssg_teach"):
        sent[client].append(arrays_of(message, "x.generator"))
        taught[client] = arrays_of(reply, "x.taught")["classes"] > 0
    first, own_only = sent[0][0], False
    for client, (before, after) in sent.items():
        np.testing.assert_array_equal(before[ROW], first[ROW])
        assert not np.array_equal(after["net.leave.weight"], before["net.leave.weight"]), "the rest is everybody's"
        moved = (after[ROW][:-1] != first[ROW][:-1]).any(axis=1)
        np.testing.assert_array_equal(moved, taught[client])
        own_only |= not taught[client].all()
    assert own_only, "a client that lacks a class is what this is about"
    for client, message, _ in wire.of("fedssg_veto"):
        asked = arrays_of(message, "x.generator")
        np.testing.assert_array_equal((asked[ROW][:-1] != first[ROW][:-1]).any(axis=1), taught[client])


def test_clients_vote_on_samples_that_nobody_has_drawn_before(run):
    result, wire = run
    start = wire.events.index("fedssg_veto")
    end = len(wire.events) - wire.events[::-1].index("end fedssg_veto")
    assert "drawn" not in wire.events[:start]
    assert "drawn" in wire.events[start:end]
    assert "drawn" in wire.events[end:], "the server draws after the last vote"
    for _, message, reply in wire.of("fedssg_veto"):
        assert set(message.array_records) >= {"x.generator", "x.wanted"}
        assert "x.samples" not in message
        figures = dict(reply.metric_records["x.figures"])
        judged = {name: value for name, value in figures.items() if name.startswith("privacy/samples/")}
        assert judged
        assert min(judged.values()) >= LEAST_VOTED
        assert any(name.startswith("privacy/features_nearest_ratio/") for name in figures), "the encoder's space"
    report = report_of(result)
    assert report["vetoed"] == []
    assert np.array(report["taken"]).sum() > 0
    assert "privacy/weights_mia_auc/class_1" in metrics_of(result)[0]


def test_a_class_leaves_only_if_all_who_taught_it_allow_it(tmp_path, monkeypatch):
    original = FedSSGClient.query

    def vetoes(client, name, content, context):
        reply = original(client, name, content, context)
        if name == "fedssg_veto" and context.client == 0:
            marks = arrays_of(reply, "x.verdicts")
            marks["verdicts"][marks["verdicts"] == 1] = 0
            reply["x.verdicts"] = type(reply["x.verdicts"])({k: torch.from_numpy(v) for k, v in marks.items()})
        return reply

    monkeypatch.setattr(FedSSGClient, "query", vetoes)
    result = launch_in(tmp_path, *WORDS, *HARMLESS)
    report = report_of(result)
    verdicts = np.array([report["verdicts"][str(client)] for client in range(3)])
    own = verdicts[0] == 0
    assert own.any()
    assert not own.all()
    assert set(report["vetoed"]) <= {name for name, no in zip(report["classes"], own, strict=True) if no}
    assert not np.array(report["taken"])[:, own].any()
    assert np.array(report["taken"]).sum() > 0


def test_a_run_of_which_every_class_is_vetoed_fails_with_the_verdicts(tmp_path):
    with pytest.raises(
        RunFailed, match=r"no class passed the vote .*'class_\d' by 1 of 1 that taught it \(clients"
    ) as e:
        launch_in(tmp_path, *WORDS, *HARMLESS, "strategy.fedssg.audit.min_holders=4")
    assert "use more rows per class" in str(e.value)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    kept = json.loads((folder / "artifacts" / "fedssg.json").read_text())
    assert kept["vetoed"]
    assert {0, -1} >= {one for verdicts in kept["verdicts"].values() for one in verdicts}


def test_weights_that_give_a_class_away_are_trained_again_without_it(tmp_path, monkeypatch):
    from fedimb.clients import fedssg

    original, trained = fedssg.weight_leakage, []

    def leaky(attack, rows, others, n_classes, settings, alpha, seed):
        found = original(attack, rows, others, n_classes, settings, alpha, seed)
        trained.append(sorted(set(rows.y.tolist())))
        found[2, -1] = float(2 in rows.y)
        return found

    monkeypatch.setattr(fedssg, "weight_leakage", leaky)
    wire = Wire(monkeypatch)
    result = launch_in(tmp_path, *WORDS, *HARMLESS)
    assert report_of(result)["given_away_by_weights"] == ["class_2"]
    for _, _, reply in wire.of("fedssg_teach"):
        assert arrays_of(reply, "x.taught")["classes"][2] == 0
    assert sum(2 in classes for classes in trained) == 2, "once at each client that has it: not again in the next round"


def test_a_client_takes_rounds_and_steps_from_its_configuration_not_from_a_message(tmp_path, monkeypatch):
    """The level of the attack on the weights is shared by the rounds: of a million, no class would be given away."""
    honest = fedssg_pools.FederatedGenerator

    def lying(made, clients, rounds, steps, number):
        return honest(made, clients, 10**6, steps, number)

    monkeypatch.setattr(fedssg_pools, "FederatedGenerator", lying)
    with pytest.raises(RunFailed, match=r"the message says rounds=1000000 of the generator; this run has 2"):
        launch_in(tmp_path, *WORDS, *HARMLESS)


def test_where_nobody_has_rows_enough_it_says_so_before_any_training(tmp_path):
    words = (*WORDS, "data.source.rows=120")
    with pytest.raises((RunFailed, DataError), match=re.escape("no client has 20 rows of any class")):
        launch_in(tmp_path, *words)
