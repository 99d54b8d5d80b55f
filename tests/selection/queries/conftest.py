"""Questions to ask of query rules: toy clients with a long tail."""

import pytest

from fedimb.testing.selection import question


@pytest.fixture(scope="session")
def client():
    """Make a question: ``client(counts=[...], labelled=[...], budget=..., **fields of QueryInput)``."""
    return question
