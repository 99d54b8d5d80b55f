"""Samples that passed the export gate wait here until a person of the site releases or rejects them, class by class."""

from fedimb.generation.outbox.box import Outbox
from fedimb.generation.outbox.contents import recalled_batches

__all__ = ["Outbox", "recalled_batches"]
