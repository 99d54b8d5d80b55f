"""What ``fedimb ui`` serves answers nothing that the assistant of MLflow's pages asks."""

import asyncio

import pytest

from fedimb.tracking.server_app import without_assistant


def answered(path, kind="http"):
    """Status of the answer to a path, or ``inner`` if the wrapped application was asked."""
    said = []

    async def inner(scope, receive, send):
        said.append("inner")

    async def send(message):
        said.append(message.get("status"))

    asyncio.run(without_assistant(inner)({"type": kind, "path": path}, None, send))
    return said[0]


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/message",
        "/ajax-api/3.0/mlflow/assistant",
        "/prefix/ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/4.0/mlflow//assistant/sessions/1/stream",
        "/api/3.0/mlflow/Assistant/skills/install",
    ],
)
def test_requests_of_the_assistant_are_not_served(path):
    assert answered(path) == 404


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ajax-api/2.0/mlflow/runs/search", "/ajax-api/3.0/mlflow/assistants"]
)
def test_all_others_are(path):
    assert answered(path) == "inner"
    assert answered("/ajax-api/3.0/mlflow/assistant", kind="lifespan") == "inner"
