"""Patience: nodes that are away, come back, restart, or answer too late; over a Flower that is told what to do."""

import json
import time

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict
from loopback import Loopback
from study_plans import node_home

from fedimb.deploy.coordinator.site_grid import EVENTS, DeployedGrid, Timeouts, _names
from fedimb.deploy.incidents import WAITING
from fedimb.engine.flower_private import number
from fedimb.errors import RunFailed, RunWaiting

SITES = ("linz", "st-anna", "va")
FAST = Timeouts(join_s=0.2, away_s=5, poll_s=0.001, check_s=0.002)


class Scripted(Loopback):
    """Nodes that answer at once with nothing, unless ``script`` says otherwise: site -> list of what happens next.

    An int is an error code, ``lost`` no answer ever, ``ok`` an answer; after the list: ok.
    """

    def __init__(self, homes, script):
        super().__init__(homes)
        self.script = {site: list(steps) for site, steps in script.items()}

    def pull_messages(self, ids):
        replies = []
        for id_ in ids:
            message = self._open[id_]
            site = self.homes[message.metadata.dst_node_id].site
            step = self.script[site].pop(0) if self.script.get(site) else "ok"
            if step == "lost":
                self.script[site].insert(0, "lost")
                self.lost(site)
                continue
            self.asked.append((site, message.metadata.message_type))
            if step == "ok":
                replies.append(Message(RecordDict({"x.said": MetricRecord({"one": 1.0})}), reply_to=message))
            else:
                text = f"waiting: {site} (labels 0/4)" if step == WAITING else "the node is not there"
                replies.append(Message(Error(step, text), reply_to=message))
                self.failed(site)
        return replies

    def lost(self, site):
        """A message is not answered."""

    def failed(self, site):
        """An error was given back."""


@pytest.fixture
def homes(tmp_path):
    return [node_home(tmp_path / site, f"site: {site}\n") for site in SITES]


class NoSignatures:
    """In the place of `SignedMessages`: these nodes sign nothing, and nothing is checked."""

    def order(self, client, message, node):
        return Message(message.content, node, message.metadata.message_type), None

    def check(self, client, order, message, reply):
        return reply


def grid(flower, tmp_path, timeouts=FAST):
    (tmp_path / "run").mkdir(exist_ok=True)
    return DeployedGrid(flower, SITES, tmp_path / "run", timeouts, NoSignatures())


def lanes():
    instructions = [(client, Message(RecordDict(), client + 1, "query.any")) for client in range(3)]
    for client, message in instructions:
        number(message, str(client))
    return [[one] for one in instructions]


def errors(outcomes):
    return {answer.client: answer.error for one in outcomes for answer in one.replies}


def told(tmp_path):
    path = tmp_path / "run" / EVENTS
    return [json.loads(line)["text"] for line in path.read_text().splitlines()] if path.exists() else []


def test_clients_are_sites_by_name_whatever_their_ids(homes, tmp_path):
    made = grid(Scripted([homes[2], homes[0], homes[1]], {}), tmp_path)
    assert made._node_of == {0: 102, 1: 103, 2: 101}
    assert errors(made.run_lanes(lanes(), False, [1] * 3)) == {0: None, 1: None, 2: None}
    assert told(tmp_path) == []


def test_a_site_that_is_not_online(homes, tmp_path):
    flower = Scripted(homes, {})
    flower.offline |= {"st-anna", "va"}
    with pytest.raises(RunFailed, match="st-anna, va not online after 0 s"):
        grid(flower, tmp_path)


@pytest.mark.parametrize("code", [3, 4, 5])
def test_a_node_that_goes_away_is_asked_again_when_it_is_back(homes, tmp_path, code):
    looks = []

    class Flower(Scripted):
        def failed(self, site):
            self.offline.add(site)

        def get_nodes(self):
            looks.append(len(self.asked))
            if looks[-3:] == [3] * 3:  # asked thrice while it was away
                self.offline.clear()
            return super().get_nodes()

    flower = Flower(homes, {"va": [code]})
    assert errors(grid(flower, tmp_path).run_lanes(lanes(), False, [1] * 3)) == {0: None, 1: None, 2: None}
    assert flower.asked.count(("va", "query.any")) == 2
    assert told(tmp_path) == ["va is away; asked again when it is back"]


def test_a_node_that_is_away_when_it_should_be_asked_gets_the_message_once(homes, tmp_path):
    flower = Scripted(homes, {})
    made = grid(flower, tmp_path)
    flower.offline.add("linz")
    honest, seen = flower.get_nodes, []

    def get_nodes():
        seen.append(1)
        if len(seen) > 4:
            flower.offline.clear()
        return honest()

    flower.get_nodes = get_nodes
    assert errors(made.run_lanes(lanes(), False, [1] * 3))[0] is None
    assert flower.asked.count(("linz", "query.any")) == 1
    assert told(tmp_path) == ["linz is not online; asked when it is back"]


def test_patience_with_a_node_that_stays_away_ends(homes, tmp_path):
    flower = Scripted(homes, {"va": [5]})
    flower.failed = flower.offline.add
    found = errors(grid(flower, tmp_path, Timeouts(0.2, 0.05, None, 0.001, 0.002)).run_lanes(lanes(), False, [1] * 3))
    assert found[0] is None
    assert found[2] == "va: the node is not there"
    assert told(tmp_path) == ["va is away; asked again when it is back", "va: the node is not there"]


def test_a_node_that_restarted_lost_its_message(homes, tmp_path):
    class Flower(Scripted):
        def lost(self, site):
            self.let_in[site] = "2"
            self.script[site].clear()
            self._open = {id_: one for id_, one in self._open.items() if one.metadata.dst_node_id != 101}

        def pull_messages(self, ids):
            return super().pull_messages([id_ for id_ in ids if id_ in self._open])

    flower = Flower(homes, {"linz": ["lost"]})
    assert errors(grid(flower, tmp_path).run_lanes(lanes(), False, [1] * 3))[0] is None
    assert told(tmp_path) == ["linz was restarted before it answered; asked again"]


def test_a_deadline_leaves_the_late_one_out_and_the_next_message_finds_it(homes, tmp_path):
    flower = Scripted(homes, {"st-anna": ["lost"]})
    timeouts = Timeouts(0.2, 600, 0.05, 0.001, 0.002)
    made, started = grid(flower, tmp_path, timeouts), time.monotonic()
    found = errors(made.run_lanes(lanes(), False, [1] * 3))
    assert (time.monotonic() - started) / timeouts.away_s < 0.1  # the deadline ended it, not the patience with the away
    text = "st-anna: no reply within 0.05 s (clients.deadline_s); left out of this step"
    assert found == {0: None, 1: text, 2: None}
    assert told(tmp_path) == [text]
    flower.script["st-anna"].clear()
    assert errors(made.run_lanes(lanes(), False, [1] * 3)) == {0: None, 1: None, 2: None}


def test_joining_has_the_time_of_joining_not_the_deadline(homes, tmp_path):
    made = grid(Scripted(homes, {}), tmp_path, Timeouts(5, 5, 1e-9, 0.001, 0.002))
    assert sorted(made.query_all("join_site", lambda client: {"client": client})) == [0, 1, 2]


def test_waits_are_told_together_in_the_order_of_sites(homes, tmp_path):
    made = grid(Scripted(homes, {"va": [WAITING], "linz": [WAITING]}), tmp_path)
    with pytest.raises(RunWaiting, match=r"^waiting: linz \(labels 0/4\); va \(labels 0/4\)$"):
        made.run_lanes(lanes(), False, [1] * 3)


def test_a_message_that_is_not_taken_names_the_site(homes, tmp_path):
    flower = Scripted(homes, {})
    made = grid(flower, tmp_path)
    flower.push_messages = lambda messages: ["1", None, "3"]
    with pytest.raises(RunFailed, match="did not take the message for st-anna"):
        made.run_lanes(lanes(), False, [1] * 3)
    flower.push_messages = lambda messages: []  # too large: Flower answers with nothing
    with pytest.raises(RunFailed, match="did not take the message for any site"):
        made.run_lanes(lanes(), False, [1] * 3)


@pytest.mark.parametrize(
    ("text", "named"),
    [("the value", False), ("va: lost", True), ("va's update", True), ("nova failed", False), ("va-2 failed", False)],
)
def test_a_site_is_named_as_a_word(text, named):
    assert _names(text, "va") is named
