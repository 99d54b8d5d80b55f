"""Samples that passed the export gate wait here until a person of the site releases or rejects them, class by class."""

from fedimb.privacy.outbox.box import Outbox
from fedimb.privacy.outbox.contents import marked

__all__ = ["Outbox", "marked"]
