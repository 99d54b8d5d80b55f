"""MLflow's server without its assistant: what ``fedimb ui`` serves.

MLflow's pages have an assistant whose API, open to every process of the machine, can start coding agents
and run commands on it; there is no switch. Its panel opens by itself over the charts on a browser's first visit, unless
the browser's storage says that it has done so. `create_app` is an entry point of the group ``mlflow.app``, by which
``mlflow server --app-name`` finds it.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

NAME = "fedimb"
"""The entry point's name."""
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ASSISTANT = re.compile(r"/(?:ajax-)?api/[^/]+/mlflow/assistant(?:/|$)", re.IGNORECASE)
_START_PAGE = re.compile(r"/(?:index\.html)?$")
_OPENED_BEFORE = b"localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
_PANEL_STAYS_CLOSED = b"<script>try { " + _OPENED_BEFORE + b" } catch (e) {}</script>"


def _panel_closed(send: Send) -> Send:
    """``send`` for MLflow's start page: HTML gets one line in its head, anything else passes as it is."""
    start: MutableMapping[str, Any] | None = None
    body = b""

    async def edited(message: MutableMapping[str, Any]) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start":
            headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", [])}
            if message["status"] == 200 and headers.get(b"content-type", b"").startswith(b"text/html"):
                start = message
                return
        if start is None or message["type"] != "http.response.body":
            await send(message)
            return
        body += message.get("body", b"")
        if message.get("more_body"):
            return
        page = body.replace(b"<head>", b"<head>" + _PANEL_STAYS_CLOSED, 1)
        kept = [(name, value) for name, value in start["headers"] if bytes(name).lower() != b"content-length"]
        await send({**start, "headers": [*kept, (b"content-length", str(len(page)).encode())]})
        await send({**message, "body": page})

    return edited


def without_assistant(app: App) -> App:
    """The ASGI application ``app`` without the assistant: its API answers 404 below any prefix; its panel is closed."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("method") == "GET" and _START_PAGE.search(scope["path"]):
            await app(scope, receive, _panel_closed(send))
            return
        if scope["type"] != "http" or not _ASSISTANT.search(re.sub("/+", "/", scope["path"])):
            await app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"detail": "fedimb ui serves no assistant"}'})

    return served


def create_app() -> App:
    """MLflow's application `without_assistant`."""
    from mlflow.server.fastapi_app import app

    return without_assistant(app)
