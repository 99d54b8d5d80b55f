"""What ``fedimb ui`` serves answers nothing that the assistant of MLflow's pages asks."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

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


def page(start, *bodies, path="/", method="GET"):
    """What comes of an answer in pieces: (headers, body)."""
    said = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", **start})
        for at, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": at + 1 < len(bodies)})

    async def send(message):
        said.append(message)

    asyncio.run(without_assistant(inner)({"type": "http", "path": path, "method": method}, None, send))
    return dict(said[0]["headers"]), b"".join(message["body"] for message in said[1:])


HTML = {"status": 200, "headers": [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"26")]}


def test_the_start_page_says_that_the_panel_was_open_before():
    headers, body = page(HTML, b"<html><he", b"ad></head></html>")
    assert body.startswith(b"<html><head><script>")
    assert body.endswith(b"</script></head></html>")
    assert int(headers[b"content-length"]) == len(body)


@pytest.mark.parametrize("words", [{"path": "/get-artifact"}, {"method": "HEAD"}])
def test_pages_of_others_and_other_answers_are_left_as_they_are(words):
    assert page(HTML, b"<head>", b"</head>", **words) == (dict(HTML["headers"]), b"<head></head>")


def test_what_is_not_html_or_not_changed_is_left_as_it_is():
    plain = {"status": 200, "headers": [(b"content-type", b"text/plain")]}
    assert page(plain, b"<head>") == (dict(plain["headers"]), b"<head>")
    assert page({"status": 304, "headers": []}, b"") == ({}, b"")


def test_mlflows_own_page_keeps_its_state_under_that_name():
    """Another release may rename it; the panel would open over the charts again."""
    mlflow = find_spec("mlflow")
    if mlflow is None or mlflow.origin is None:
        pytest.skip("mlflow is not installed")
    built = Path(mlflow.origin).parent / "server" / "js" / "build"
    assert b"<head>" in (built / "index.html").read_bytes()
    (main,) = (built / "static" / "js").glob("main.*.js")
    text = main.read_text(encoding="utf-8")
    assert 'key:"mlflow.assistant.fab.autoOpenedOnFirstLoad",version:1' in text
