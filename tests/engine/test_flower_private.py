"""The private Flower names fedimb relies on, checked on every upgrade."""

import flwr
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedimb.engine.flower_private import ensure_identity, number


def test_a_message_can_be_made_and_numbered_without_a_superlink():
    ensure_identity()
    message = Message(RecordDict(), 7, "query.any")
    number(message, "41")
    reply = Message(RecordDict(), reply_to=message)
    assert message.metadata.message_id == "41"
    assert reply.metadata.reply_to_message_id == "41"
    assert reply.metadata.src_node_id == 7


def test_an_identity_flower_gave_is_kept(monkeypatch):
    monkeypatch.setattr(TaskIdentity, "_run_id", 1234)
    ensure_identity()
    assert TaskIdentity.run_id == 1234


def test_the_pinned_version_is_the_one_these_names_were_read_in():
    assert flwr.__version__.startswith("1.41."), "read flower_private.py again before moving the pin"
