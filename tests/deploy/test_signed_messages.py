"""Orders and replies are signed: what is altered, replayed or attributed to another is refused at either end."""

import base64
import copy
import json

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deployed import Study, events, small_study, usable
from evil import order_id, sign_order
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from loopback import Loopback, at_node
from study_plans import keys_of, node_home, plan_of, run_config

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.coordinator.signed_messages import UNSIGNED, SignedMessages
from fedimb.deploy.files import write_private
from fedimb.deploy.incidents import INCIDENT, ORDER_REFUSED, WAITING
from fedimb.deploy.signing import Order, content_digest, load_key, sign, split_signature, verify, with_signature
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.pairwise_masks import signed_run_key
from fedimb.engine.flower_private import ensure_identity
from fedimb.errors import ConfigError, RunFailed
from fedimb.privacy.egress_filter import REFUSED
from fedimb.records import array_record, arrays_of, pack, unpack
from fedimb.serverapp.steps import masked_request

SITES = {"linz": 40, "st-anna": 40, "va": 40}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    made = small_study(tmp_path_factory.mktemp("signed"), SITES, "tracking=none", "rounds=1", runs=10)
    for home in made.homes.values():
        receive_plan(home, made.plan.to_json())
    made.approve()
    return made


def test_every_signature_is_as_long_as_any_other(study):
    """Else the bytes of a round, which are among its results, differ from run to run."""
    home = study.homes["va"]
    key, public = load_key(home.file("key")), home.file("key.pub").read_text()
    signed = {text: sign(key, text) for text in (str(n).encode() for n in range(150))}
    assert {len(one) for one in signed.values()} == {128}
    assert all(verify(public, text, one) for text, one in signed.items())
    short = base64.b64encode(base64.b64decode(signed[b"0"])[:-1]).decode()
    assert not verify(public, b"0", short)


def test_a_key_on_another_curve_is_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP521R1())
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    write_private(tmp_path / "key", other.private_bytes(*encoding))
    with pytest.raises(ConfigError, match="is not a key on P-384"):
        load_key(tmp_path / "key")


class Between(Loopback):
    """Whoever terminates TLS: changes va's messages of the rounds and its replies, and keeps what it saw.

    Args:
        there: (message) -> what arrives at va.
        back: (message, reply) -> what arrives at the coordinator.
    """

    def __init__(self, homes, run_id, there=lambda message: message, back=lambda message, reply: reply):
        super().__init__(homes, run_id)
        self.there, self.back = there, back
        self.seen: list[tuple[Message, Message]] = []

    def pull_messages(self, ids):
        replies = []
        for id_ in ids:
            message = self._open.pop(id_)
            kept, home = copy.deepcopy(message), self.site(message)
            touched = home.site == "va" and message.metadata.message_type == "train"
            reply = at_node(home, self.there(message) if touched else message, self.run_id)
            self.seen.append((kept, copy.deepcopy(reply)))
            replies.append(self.back(kept, reply) if touched else reply)
        return replies

    def site(self, message):
        """The node that a message is for."""
        return self.homes[message.metadata.dst_node_id]

    def one(self, site, kind="train"):
        """A copy of (message, reply) of a site."""
        return copy.deepcopy(
            next(
                pair for pair in self.seen if self.site(pair[0]).site == site and pair[0].metadata.message_type == kind
            )
        )


@pytest.fixture(scope="module")
def honest(study) -> Between:
    """What went to and fro in a run in which nobody changed anything."""
    grid = Between(study.homes.values(), 1)
    serve(study.new().path, grid)
    return grid


@pytest.fixture
def signed(study, honest) -> SignedMessages:
    """The coordinator's end of that run."""
    return SignedMessages(study.deployment, study.plan, _name(study, honest))


def _name(study, grid):
    return study.homes["va"].file("state", "flower", str(grid.run_id)).read_text()


def last_line(study, site="va"):
    return list(AuditLog(study.homes[site].file("audit.jsonl")).lines())[-1]["facts"]


def altered(message):
    message.content["arrays"] = array_record({n: v + 1 for n, v in arrays_of(message.content, "arrays").items()})


def other_round(message):
    message.content["x.fedimb"] = ConfigRecord(dict(message.content.config_records["x.fedimb"]) | {"round": 7})


def other_type(message):
    message.metadata.message_type = "query.class_counts"


def renumbered(message):
    message.content["x.order"] = ConfigRecord(dict(message.content.config_records["x.order"]) | {"id": "0" * 32})


def more(message):
    message.content["x.more"] = ConfigRecord({"a": 1})


def unsigned(message):
    del message.content["x.order"]


@pytest.mark.parametrize("change", [altered, other_round, other_type, renumbered, more, unsigned])
def test_an_order_that_was_changed_on_its_way_is_refused_with_a_line(study, honest, change):
    message, _ = honest.one("va")
    change(message)
    reply = at_node(study.homes["va"], message, honest.run_id)
    why = "answers only messages that" if change is unsigned else "refused a message whose signature is not"
    assert reply.error.code == ORDER_REFUSED
    assert reply.error.reason.startswith(f"va {why} the coordinator")
    assert split_signature(reply.error.reason)[1] == ""  # whoever changed it gets no signature of the site
    facts = last_line(study)
    assert (facts["outcome"], facts["code"], facts["text"]) == ("error", ORDER_REFUSED, reply.error.reason)


@pytest.mark.parametrize("kind", ["train", "query.join_site"])
def test_an_order_is_answered_once_and_by_its_recipient(study, honest, kind):
    for site in SITES:
        message, _ = honest.one(site, kind)
        again = at_node(study.homes[site], copy.deepcopy(message), honest.run_id)
        assert (again.error.code, again.error.reason) == (
            ORDER_REFUSED,
            f"{site} refused a message that was sent before: somebody replayed it",
        )
        assert last_line(study, site)["text"] == again.error.reason
        for other in SITES.keys() - {site}:
            reply = at_node(study.homes[other], copy.deepcopy(message), honest.run_id)
            assert reply.error.code == ORDER_REFUSED
            assert "meant for another site" in reply.error.reason


def nan(reply, honest):
    reply.content["arrays"] = array_record({n: v * np.nan for n, v in arrays_of(reply.content, "arrays").items()})


def weightier(reply, honest):
    reply.content["metrics"] = MetricRecord(dict(reply.content.metric_records["metrics"]) | {"num-examples": 10.0**15})


def stripped(reply, honest):
    del reply.content["x.signature"]


def without_audit(reply, honest):
    del reply.content["x.audit"]


def of_another_site(reply, honest):
    reply.content.clear()
    reply.content.update(honest.one("linz")[1].content)


def of_another_order(reply, honest):
    reply.content.clear()
    reply.content.update(honest.one("va", "query.join_site")[1].content)


@pytest.mark.parametrize("change", [nan, weightier, stripped, without_audit, of_another_site, of_another_order])
def test_a_reply_that_was_changed_exchanged_or_kept_from_before_is_left_out(study, honest, signed, change):
    message, reply = honest.one("va")
    order = Order.of(message, "va", study.plan.sha, _name(study, honest), order_id(message))
    assert not signed.check(2, order, message, copy.deepcopy(reply)).has_error()
    change(reply, honest)
    found = signed.check(2, order, message, reply)
    assert found.error.code == UNSIGNED
    assert found.error.reason.startswith("va: a reply was left out, because va did not sign it for this message")


def test_the_reply_to_one_order_answers_no_other(study, honest, signed):
    message, reply = honest.one("va")
    order = Order.of(message, "va", study.plan.sha, _name(study, honest), "2" * 32)
    assert signed.check(2, order, message, copy.deepcopy(reply)).error.code == UNSIGNED
    order = Order.of(message, "linz", study.plan.sha, _name(study, honest), order_id(message))
    assert signed.check(0, order, message, reply).error.code == UNSIGNED


@pytest.mark.parametrize("code", [WAITING, 1304, 1, 99])
def test_an_error_that_nobody_signed_is_marked_as_such(study, honest, signed, code):
    message, _ = honest.one("va")
    order = Order.of(message, "va", study.plan.sha, _name(study, honest), order_id(message))
    found = signed.check(2, order, message, Message(Error(code, "waiting: va\x1b[2J" + "x" * 10**6), reply_to=message))
    assert found.error.code == UNSIGNED
    assert found.error.reason.startswith(
        f"va did not sign this error (code {code}), so it may be anybody's: waiting: va [2Jxx"
    )
    assert len(found.error.reason) < 400
    lost = signed.check(2, order, message, Message(Error(5, "the node went away"), reply_to=message))
    assert lost.error.code == 5  # Flower's own: the message is sent again


def test_an_error_is_signed_by_its_site(study, honest, signed):
    home, asked = study.homes["va"], order_to_va(study, honest, "query.masked_counts")
    order = Order.of(asked, "va", study.plan.sha, _name(study, honest), order_id(asked))
    reply = at_node(home, copy.deepcopy(asked), honest.run_id)
    assert split_signature(reply.error.reason)[1]
    found = signed.check(2, order, asked, reply)
    assert found.error.code == REFUSED
    assert found.error.reason.endswith("does not list message 'query.masked_counts'")
    text, signature = split_signature(reply.error.reason)
    changed = Message(Error(reply.error.code, with_signature(f"{text}!", signature)), reply_to=asked)
    assert signed.check(2, order, asked, changed).error.code == UNSIGNED


def test_in_a_run_what_was_changed_is_named_and_the_rest_goes_on(study):
    """Round 1: an altered order. 2: an altered reply. 3: a forged error that would end the run. 4: nothing."""
    folder = study.new("rounds=4")

    def round_of(message):
        return message.content.config_records["x.fedimb"]["round"]

    def there(message):
        if round_of(message) == 1:
            altered(message)
        return message

    def back(message, reply):
        if round_of(message) == 2:
            nan(reply, None)
        if round_of(message) == 3:
            return Message(Error(WAITING, "waiting: va (labels 0/4)"), reply_to=message)
        return reply

    serve(folder.path, Between(study.homes.values(), 2, there, back))
    assert usable(folder) == [2, 2, 2, 3]
    order, reply, error = events(folder)
    assert "(code 1307), so it may be anybody's: va refused a message whose signature is not" in order
    assert reply.startswith("va: a reply was left out, because va did not sign it for this message")
    assert error == "va did not sign this error (code 1306), so it may be anybody's: waiting: va (labels 0/4)"


@pytest.mark.parametrize("lie", ["swapped", "invented"])
def test_a_coordinator_that_swaps_a_run_key_or_invents_a_site_gets_no_masked_sum(tmp_path, monkeypatch, lie):
    """One honest site refuses, so the sum stays hidden; which one it is does not matter."""
    study = small_study(
        tmp_path, SITES, "tracking=none", "rounds=1", "prior.provenance=secure_sum", "loss=balanced_softmax"
    )
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    own, folder = node_home(tmp_path / "own", "site: va\n"), study.new()
    key = signed_run_key(own, study.plan.sha, folder.path.name)  # signed with a key that is not va's in the plan

    def request(view, clients, pairs):
        if lie == "swapped":
            return masked_request(view, clients, dict(pairs) | {2: key})
        return masked_request(view, [*clients, 3], dict(pairs) | {3: key})

    monkeypatch.setattr("fedimb.serverapp.masked_sum.masked_request", request)
    with pytest.raises(RunFailed):
        serve(folder.path, Loopback(study.homes.values()))
    why = (
        "a run key of va that va did not sign"
        if lie == "swapped"
        else "takes part in sums over the 3 sites of the plan alone"
    )
    assert [event for event in events(folder) if event.startswith("linz ") and why in event]
    sums = [facts for facts in study.messages("linz", folder.path.name) if facts["type"] == "query.masked_counts"]
    assert [(facts["outcome"], facts["records"]) for facts in sums] == [("error", [])]


def order_to_va(study, grid, kind, content=None):
    """A message to va in the same run, signed by the coordinator."""
    name = _name(study, grid)
    made = Message(content or RecordDict(), 103, kind)
    sign_order(study.deployment, study.plan.sha, "va", name, made)
    return made


@pytest.mark.parametrize("kind", ["query.everything", "evaluate", "train.fast"])
def test_a_message_of_an_unknown_type_leaves_its_line(study, honest, kind):
    reply = at_node(study.homes["va"], order_to_va(study, honest, kind), honest.run_id)
    assert f"the approved study plan does not list message '{kind}'" in reply.error.reason
    facts = last_line(study)
    assert (facts["type"], facts["outcome"]) == (kind, "error")
    unknown = at_node(study.homes["va"], Message(RecordDict(), 103, kind), 4711)  # of a run that nobody joined
    assert "va has not joined this run" in unknown.error.reason
    assert last_line(study)["type"] == kind


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"client": 0}, "va does not join: it was asked as client 0 of 3; the plan makes it 2 of 3"),
        ({"client": 1}, "asked as client 1 of 3"),
        ({"client": 3}, "asked as client 3 of 3"),
        ({"client": 7, "clients": 2}, "asked as client 7 of 2"),
        ({"client": True}, "asked as client True of 3"),
        ({"clients": 30_000_000}, "asked as client 2 of 30000000"),
        ({"run": "../../../etc"}, "does not take a run of that name"),
        ({"run": "a/b"}, "does not take a run of that name"),
        ({"run": ".."}, "does not take a run of that name"),
        ({"plan": "{}"}, "of an earlier release, without the sites' keys"),
    ],
)
def test_joining_is_checked_against_the_plan(study, change, why):
    asked = {"run": "s0-x", "plan": study.plan.to_json(), "cfg-json": json.dumps(study.plan.config)}
    asked |= {"client": 2, "clients": 3} | change
    made = Message(RecordDict({"x.run": ConfigRecord(asked)}), 103, "query.join_site")
    sign_order(study.deployment, study.plan.sha, "va", str(asked["run"]), made)
    before = set(study.homes["va"].root.parent.rglob("run.json"))
    reply = at_node(study.homes["va"], made, 88)
    assert why in reply.error.reason
    assert why in last_line(study)["text"]
    assert set(study.homes["va"].root.parent.rglob("run.json")) == before


def test_a_plan_that_another_coordinator_signed_is_not_even_kept(study, tmp_path):
    plan = plan_of(run_config("clients.count=3"), purpose="another's")
    asked = {"run": "s0-x", "plan": plan.to_json(), "cfg-json": "{}", "client": 2, "clients": 3}
    made = Message(RecordDict({"x.run": ConfigRecord(asked)}), 103, "query.join_site")
    order = Order.of(made, "va", plan.sha, "s0-x", "1" * 32)
    write_private(tmp_path / "key", keys_of("stranger")[0])
    signature = sign(load_key(tmp_path / "key"), order.statement("order", content_digest(made.content)))
    made.content["x.order"] = ConfigRecord({"id": order.id, "signature": signature})
    reply = at_node(study.homes["va"], made, 89)
    assert reply.error.code == ORDER_REFUSED
    assert not study.homes["va"].file("plans", plan.sha).exists()


def test_a_run_is_not_joined_again_under_another_configuration(study, honest):
    asked = dict(honest.one("va", "query.join_site")[0].content.config_records["x.run"])
    changed = json.loads(asked["cfg-json"]) | {"seed": 5}
    content = RecordDict({"x.run": ConfigRecord(asked | {"cfg-json": json.dumps(changed)})})
    reply = at_node(study.homes["va"], order_to_va(study, honest, "query.join_site", content), honest.run_id)
    assert "va joined this run with another config: start a new run" in reply.error.reason


def test_a_coordinator_without_the_plans_key_starts_no_run(study):
    folder = study.new()
    path = study.deployment.file("sign.key")
    before = path.read_bytes()
    write_private(path, keys_of("stranger")[0])
    try:
        with pytest.raises(ConfigError, match="is not the key in plan"):
            serve(folder.path, Loopback(study.homes.values(), 3))
    finally:
        write_private(path, before)


def test_a_site_that_cannot_sign_sends_nothing(study, honest):
    home = study.homes["va"]
    content = honest.one("va")[0].content
    del content["x.order"]
    message = order_to_va(study, honest, "train", content)
    home.file("key").rename(home.file("key.away"))
    try:
        reply = at_node(home, message, honest.run_id)
    finally:
        home.file("key.away").rename(home.file("key"))
    assert reply.error.code == INCIDENT
    assert "va failed in train (incident" in reply.error.reason


def test_what_is_signed_for_one_purpose_passes_for_no_other(tmp_path):
    ensure_identity()
    home = node_home(tmp_path / "va", "site: va\n")
    message = Message(RecordDict({"m": MetricRecord({"a": 1})}), 1, "train")
    order = Order.of(message, "va", "0" * 64, "run", "1" * 32)
    digest = content_digest(message.content)
    signature = sign(load_key(home.file("key")), order.statement("order", digest))
    public = keys_of("va")[1]
    assert verify(public, order.statement("order", digest), signature)
    assert not verify(public, order.statement("reply", digest), signature)
    assert not verify(keys_of("linz")[1], order.statement("order", digest), signature)
    for wrong in ("", "AAAA", signature[:-4], f"{signature} ", None):
        assert not verify(public, order.statement("order", digest), wrong)


@pytest.mark.parametrize(
    "changed",
    [
        {"b": MetricRecord({"a": 1})},
        {"m": MetricRecord({"a": 1.0})},
        {"m": ConfigRecord({"a": 1})},
        {"m": ConfigRecord({"a": b"1"})},
        {"m": ConfigRecord({"a": "31"})},
        {"m": ConfigRecord({"a": [1]})},
        {"m": array_record({"a": np.array([1, 0], np.int32)})},
        {"m": array_record({"a": np.array([1], np.int64)})},
        {"m": array_record({"a": np.array([[1, 0]], np.int32)})},
        {"m": array_record({})},
        {},
    ],
)
def test_every_part_of_a_content_is_in_its_digest(changed):
    digests = [content_digest(RecordDict(one)) for one in ({"m": MetricRecord({"a": 1})}, changed)]
    assert len(set(digests)) == 2
    assert content_digest(unpack(pack(RecordDict(changed)))) == digests[1]
