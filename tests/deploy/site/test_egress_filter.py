"""The door of a node: what may not leave does not, in no byte, and everything that leaves is in the log first."""

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from fedimb.clientapp.state import LOST
from fedimb.contracts.base import Contract, Record
from fedimb.contracts.platform import PLATFORM
from fedimb.deploy import incidents
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.site_grid import pop_audit_head
from fedimb.deploy.home import NodeHome, SharingConfig
from fedimb.deploy.incidents import Shareable
from fedimb.deploy.site import egress_filter as egress_filter
from fedimb.deploy.site.egress_filter import Terms
from fedimb.engine.flower_private import ensure_identity
from fedimb.privacy.egress_filter import REFUSED
from fedimb.records import array_record, pack

CANARY = "Müller-4711081523"  # long enough that no time or hash holds it by chance

MINE = Contract(
    name="mine",
    queries={
        "mine_samples": (
            Record("x.samples", "arrays", "made-up pictures", "aggregate", reveals="synthetic"),
            Record("x.rows", "arrays", "one row each", "individual", optional=True),
        )
    },
)


@pytest.fixture(autouse=True)
def _identity() -> None:
    ensure_identity()


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    (tmp_path / "node.yaml").write_text("site: st-anna\n", encoding="utf-8")
    return NodeHome.open(tmp_path)


def through(home, content, message_type="train", terms=None, sent=None):
    """The reply that leaves ``home`` when its client answers ``content``, or raises it."""
    context = Context(7, 1, {}, RecordDict(), {})
    message = Message(sent or RecordDict(), dst_node_id=1, message_type=message_type)

    def client(asked, _):
        if isinstance(content, BaseException):
            raise content
        return Message(content, reply_to=asked)

    def terms_of(asked, _):
        if isinstance(terms, BaseException):
            raise terms
        return terms or Terms([PLATFORM, MINE], run="s0-abc")

    return egress_filter.egress_filter(home, terms_of, message, context, client)


def trained(**more):
    records = {
        "arrays": array_record({"w": np.arange(3, dtype=np.float32)}),
        "metrics": MetricRecord({"num-examples": 3.0}),
    }
    return RecordDict(records | more)


def counts(*values):
    return RecordDict({"x.counts": array_record({"counts": np.array(values, np.int64)})})


def logged(home):
    return [line["facts"] for line in AuditLog(home.file("audit.jsonl")).lines()]


def stored_bytes(reply):
    """Everything of a reply that Flower serialises."""
    if reply.has_error():
        return json.dumps(
            [reply.error.code, reply.error.reason, str(vars(reply.metadata))], ensure_ascii=False
        ).encode()
    return pack(reply.content) + str(vars(reply.metadata)).encode()


def test_a_reply_leaves_with_the_number_and_hash_of_its_line(home):
    sent = RecordDict({"x.fedimb": ConfigRecord({"round": 4, "step": 9, "state-base": 0})})
    reply = through(home, trained(), sent=sent)
    log = AuditLog(home.file("audit.jsonl"))
    assert pop_audit_head(reply) == log.head()
    assert set(reply.content) == {"arrays", "metrics"}
    assert log.verify() is None
    [facts] = logged(home)
    assert (facts["run"], facts["flower_run"], facts["type"]) == ("s0-abc", "7", "train")
    assert (facts["round"], facts["step"], facts["outcome"]) == (4, 9, "sent")
    first = facts["records"][0]
    content = RecordDict({"arrays": reply.content["arrays"]})
    assert first == {
        "key": "arrays", "kind": "arrays", "bytes": 12, "shape": {"w": [3]},
        "sha256": hashlib.sha256(pack(content)).hexdigest(),
    }  # fmt: skip


def test_the_line_is_on_disk_before_the_reply_goes(home, monkeypatch):
    def fails(*_):
        raise OSError(28, f"No space left on {CANARY}")

    monkeypatch.setattr(AuditLog, "append", fails)
    reply = through(home, trained())
    assert reply.has_error()
    assert reply.error.code == incidents.INCIDENT
    assert "nothing leaves" in reply.error.reason
    assert CANARY.encode() not in stored_bytes(reply)


@pytest.mark.parametrize(
    "cause",
    [
        ValueError(f"could not convert string to float: '{CANARY}'"),
        FileNotFoundError(2, "No such file", f"/data/{CANARY}.png"),
        KeyError(CANARY),
        UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
        MemoryError(CANARY),
    ],
)
@pytest.mark.parametrize("at", ["client", "terms"])
def test_no_byte_of_an_exception_leaves(home, cause, at):
    reply = through(home, trained() if at == "terms" else cause, terms=cause if at == "terms" else None)
    assert reply.has_error()
    assert reply.error.code == incidents.INCIDENT
    assert CANARY not in reply.error.reason
    assert "4711081523" not in stored_bytes(reply).decode()
    [facts] = logged(home)
    assert "st-anna failed in train" in facts["text"]
    kept = home.file("logs", "incidents", f"{facts['incident']}.txt")
    assert facts["incident"] in reply.error.reason
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    text = kept.read_text(encoding="utf-8")
    assert "4711081523" in text
    assert "Traceback" in text


def test_an_exception_while_another_is_handled_stays_too(home):
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise RuntimeError("second") from error
    except RuntimeError as error:
        reply = through(home, error)
    assert b"4711081523" not in stored_bytes(reply)
    assert CANARY in next(home.file("logs", "incidents").iterdir()).read_text(encoding="utf-8")


def test_an_error_the_client_answers_keeps_its_code_only(home):
    lost = through(home, Error(LOST, f"state_lost: client 3 has no state (/home/{CANARY}/state)"))
    assert lost.error.code == LOST
    assert lost.error.reason.startswith("state_lost: st-anna")
    other = through(home, Error(1777, CANARY))
    assert other.error.code == 1777
    for reply in (lost, other):
        assert b"4711081523" not in stored_bytes(reply)
    assert all("incident" in facts for facts in logged(home))


def test_an_undeclared_record_stays_and_so_does_its_name(home):
    reply = through(home, trained(**{f"x.{CANARY}": ConfigRecord({"a": 1})}))
    assert reply.error.code == REFUSED
    assert b"4711081523" not in stored_bytes(reply)
    assert logged(home)[0]["outcome"] == "error"


def test_a_text_written_for_the_coordinator_arrives(home):
    waiting = Shareable(incidents.WAITING, "waiting: st-anna (plan 1a2b3c4d)")
    reply = through(home, trained(), terms=waiting)
    assert (reply.error.code, reply.error.reason) == (incidents.WAITING, "waiting: st-anna (plan 1a2b3c4d)")
    assert not home.file("logs", "incidents").exists()


def test_a_message_the_plan_does_not_list_is_not_even_answered(home):
    terms = Terms([PLATFORM], messages=frozenset({"train"}))
    reply = through(home, ValueError("never reached"), "query.class_counts", terms)
    assert reply.error.code == REFUSED
    assert "the approved study plan does not list message 'query.class_counts'" in reply.error.reason
    assert not through(home, trained(), "train", terms).has_error()


def with_sharing(home, **sharing):
    home.__dict__["config"] = home.config.model_copy(update={"sharing": SharingConfig(**sharing)})
    return home


def test_class_counts_refused(home):
    reply = through(with_sharing(home, class_counts=False), counts(3, 4), "query.class_counts")
    assert reply.error.code == incidents.SHARING_REFUSED
    assert reply.error.reason.startswith(
        "st-anna refuses class_counts (x.counts): set prior.provenance=none, estimated"
    )
    masked = RecordDict({"x.counts": array_record({"counts": np.array([3, 4], np.uint64)})})
    assert not through(home, masked, "query.masked_counts").has_error()


def test_an_optional_record_is_withheld_and_the_rest_leaves(home):
    confusion = {"x.confusion": array_record({"matrix": np.eye(2, dtype=np.int64)})}
    reply = through(with_sharing(home, class_counts=False), trained(**confusion))
    assert set(reply.content) == {"arrays", "metrics", "x.audit"}
    [facts] = logged(home)
    assert facts["withheld"] == ["x.confusion"]
    assert [record["key"] for record in facts["records"]] == ["arrays", "metrics"]


def test_synthetic_samples_and_single_rows(home):
    samples = {"x.samples": array_record({"x": np.zeros((2, 4))})}
    rows = {"x.rows": array_record({"x": np.zeros((1, 4))})}
    assert "x.rows" not in through(home, RecordDict(samples | rows), "query.mine_samples").content
    with_sharing(home, individual=True)
    assert "x.rows" in through(home, RecordDict(samples | rows), "query.mine_samples").content
    refused = through(with_sharing(home, synthetic=False), RecordDict(samples), "query.mine_samples")
    assert refused.error.reason.startswith("st-anna refuses synthetic (x.samples)")


def test_a_damaged_node_yaml_masks_as_well(tmp_path):
    (tmp_path / "node.yaml").write_text(f"site: [{CANARY}\n", encoding="utf-8")
    reply = through(NodeHome(tmp_path), trained())
    assert reply.has_error()
    assert b"4711081523" not in stored_bytes(reply)


def test_what_ends_the_process_is_not_swallowed(home):
    with pytest.raises(KeyboardInterrupt):
        through(home, KeyboardInterrupt())
    assert logged(home) == []


def test_flower_uploads_no_log_of_a_client_app():
    """What the module's docstring says of Flower's source; a new release may change it."""
    from flwr.supernode import fleet_http_client
    from flwr.supernode.runtime import run_clientapp

    runner = Path(run_clientapp.__file__).read_text(encoding="utf-8")
    assert "log_uploader" not in runner
    assert "mirror_output" not in runner
    assert not [name for name in dir(fleet_http_client.FleetHttpClient) if "log" in name.lower()]
