"""Every private Flower name fedimb uses, in one place that a test checks against the installed version.

Flower 1.41 builds a Message only in a process that knows its task, and only the SuperLink numbers messages. A
simulation without a SuperLink has to do both itself.
"""

from flwr.app import Message
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["Run", "ensure_identity", "number"]


def ensure_identity() -> None:
    """Give this process a task identity unless Flower already did (a real ServerApp keeps its own)."""
    for name in ("_task_id", "_run_id", "_node_id"):
        if getattr(TaskIdentity, name) is None:
            setattr(TaskIdentity, name[1:], 1)


def number(message: Message, message_id: str) -> None:
    """Set a message's id, which its reply then names as ``reply_to_message_id``."""
    message.metadata.__dict__["_message_id"] = message_id
