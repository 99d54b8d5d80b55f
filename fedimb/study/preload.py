"""Imported first by the process that study workers are forked from, which then imports torch and the rest."""

from fedimb.process_state import collect_seldom

collect_seldom()
