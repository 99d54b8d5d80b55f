"""The server's side of a masked sum, played with clients that do what a site does; their shares travel in the clear."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from fedimb.contracts import platform as names
from fedimb.errors import RunFailed
from fedimb.privacy.recoverable_sum import commitment, expand, least_sites, opened_seeds, seeds_of
from fedimb.privacy.secret_sharing import RANDOM, element, split
from fedimb.privacy.secure_sum import mask_values
from fedimb.records import array_record, arrays_of
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.masked_sum import masked_sum
from fedimb.serverapp.steps import Query, Reply

CLIENTS = [0, 1, 2, 3, 4]
SITES = ("bern", "linz", "roma", "st-anna", "va")
VALUES = {client: np.array([client, 10 * client]) for client in CLIENTS}


def new_run():
    return RunContext(rounds=1, n_clients=5, n_classes=2, class_names=(), seed=0)


class Sites:
    """Clients of one request. ``change``: what a client sends instead, by (client, query)."""

    def __init__(self, gone=(), change=lambda client, query, content: content):
        rng = np.random.default_rng(0)
        self.gone, self.change, self.asked = set(gone), change, []
        self.own = {c: element(rng.bytes(RANDOM)) for c in CLIENTS}
        self.pairs = {pair: element(rng.bytes(RANDOM)) for pair in itertools.combinations(CLIENTS, 2)}
        size = (least_sites(len(CLIENTS)) - 1) * RANDOM
        self.shares = {
            c: [split(seed, least_sites(len(CLIENTS)), CLIENTS, rng.bytes(size)) for seed in self.seeds(c)]
            for c in CLIENTS
        }

    def seeds(self, client):
        return [
            self.own[client] if o == client else self.pairs[min(o, client), max(o, client)]
            for o in seeds_of(client, CLIENTS)
        ]

    def reply(self, client, step):
        content = {names.SUM_AGREE: self.agree, names.SUM_OPEN: self.open}.get(step.name, self.send)(client, step)
        return Reply(client, self.change(client, step.name, content))

    def send(self, client, step):
        figures = mask_values(VALUES[client], client, CLIENTS, lambda low, high, n: expand(self.pairs[low, high], n))
        rows = np.frombuffer(b"".join(map(commitment, self.seeds(client))), np.uint8).reshape(-1, 32)
        sent = {"request": np.full(32, 7, np.uint8), "commitments": rows}
        for holder in set(CLIENTS) - {client}:
            plain = b"".join(one[holder] for one in self.shares[client]) + bytes(16)
            sent[f"to/{holder}"] = np.frombuffer(plain, np.uint8)
        counts = {"counts": figures + expand(self.own[client], figures.size)}
        return RecordDict({names.COUNTS: array_record(counts), names.SHARES: array_record(sent)})

    def agree(self, client, step):
        return RecordDict({names.AGREED: ConfigRecord({"signature": f"of {client}"})})

    def open(self, client, step):
        asked = step.content.config_records[names.SUM]
        assert len(step.content[names.AGREED]) >= least_sites(len(CLIENTS))
        opened = {}
        for sender in asked["alive"]:
            if sender == client:
                plain = b"".join(one[client] for one in self.shares[client])
            else:
                plain = arrays_of(step.each[client], names.SHARES)[f"from/{sender}"].tobytes()[:-16]
            order, rows = seeds_of(sender, CLIENTS), np.frombuffer(plain, np.uint8).reshape(-1, 32)
            opened[f"from/{sender}"] = rows[[order.index(o) for o in opened_seeds(sender, CLIENTS, asked["alive"])]]
        return RecordDict({names.OPENED: array_record(opened)})

    def play(self, query="masked_counts", context=None):
        """(sum, clients in it, what was said of the others)."""
        said = []
        context = context or new_run()
        context.without = lambda *missing: said.append(missing)
        federation = SimpleNamespace(pairs=dict.fromkeys(CLIENTS, "key"), client_names=SITES)
        program, replies = masked_sum(Query(query), "train", CLIENTS, federation, context, figures_of), None
        while True:
            try:
                step = program.send(replies)
            except StopIteration as end:
                return end.value[0].tolist(), end.value[1], said
            to = [c for c in CLIENTS if c not in self.gone and (step.to is None or c in step.to)]
            assert len(to) >= step.at_least
            replies = [self.reply(client, step) for client in to]
            self.asked.append((step.name, [reply.client for reply in replies]))


def figures_of(content):
    return arrays_of(content, names.COUNTS)["counts"]


def test_all_or_all_but_one():
    assert Sites().play() == ([10, 100], CLIENTS, [])
    sites = Sites(gone=[2])
    assert sites.play("noisy_counts") == (
        [8, 80],
        [0, 1, 3, 4],
        [("noisy_counts", 2, "is opened without its figures (4 of 5 are in, with 89 % of the noise)")],
    )
    assert sites.asked == [(name, [0, 1, 3, 4]) for name in ("noisy_counts", "sum_agree", "sum_open")]


def test_one_that_was_missing_is_in_no_later_sum_of_the_run():
    """It is back: a sum over all five, minus that over the other four, would be its figures."""
    run = new_run()
    assert Sites(gone=[2]).play(context=run)[1] == [0, 1, 3, 4]
    sites = Sites()
    why = "is opened without its figures, as an earlier sum of this run was (4 of 5 are in)"
    assert sites.play("masked_scores", run) == ([8, 80], [0, 1, 3, 4], [("masked_scores", 2, why)])
    assert [who for _, who in sites.asked] == [CLIENTS, [0, 1, 3, 4], [0, 1, 3, 4]]
    later = Sites(gone=[3])  # too few are left of those: the sites decide whether they open one over others
    assert later.play("masked_scores", run)[1] == [0, 1, 2, 4]


def other(record, name, value):
    """A change of one array of one client's record."""

    def change(client, query, content):
        if client == 3 and record in content:
            arrays = {key: array.copy() for key, array in arrays_of(content, record).items()}
            arrays[name] = value(arrays[name])
            content[record] = array_record(arrays)
        return content

    return change


@pytest.mark.parametrize(
    "change",
    [
        other(names.SHARES, "request", lambda array: array + 1),
        other(names.SHARES, "commitments", lambda array: array[:-1]),
        other(names.SHARES, "to/0", lambda array: array[:-1]),
    ],
    ids=["of another request", "a commitment less", "a share less"],
)
def test_who_answers_another_request_or_not_all_of_it_is_not_in_the_sum(change):
    total, alive, said = Sites(change=change).play()
    assert (total, alive) == ([7, 70], [0, 1, 2, 4])
    assert [client for _, client, _ in said] == [3]


def test_one_that_reveals_wrong_shares_changes_nothing():
    assert Sites(change=other(names.OPENED, "from/1", lambda array: array + 1)).play()[0] == [10, 100]
    assert Sites(change=other(names.OPENED, "from/1", lambda array: array[:0])).play()[0] == [10, 100]


def test_one_whose_shares_are_no_shares_is_named_and_the_sum_is_lost():
    with pytest.raises(RunFailed, match="masks that were committed to, of st-anna alone"):
        Sites(change=other(names.SHARES, "commitments", lambda array: array + 1)).play()


def test_with_too_few_complete_replies_nothing_is_opened():
    def spoil(client, query, content):
        return RecordDict() if client in (1, 3) else content

    with pytest.raises(RunFailed, match="3 of 5 sent masked figures of one request, and 4 are needed"):
        Sites(change=spoil).play()
