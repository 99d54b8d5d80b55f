"""MLflow's server without its assistant: what ``fedimb ui`` serves.

MLflow's pages have an assistant whose API, open to every process of the machine, can start coding agents
and run commands on it; there is no switch. `create_app` is an entry point of the group ``mlflow.app``, by which
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


def without_assistant(app: App) -> App:
    """The ASGI application ``app``, but for the assistant's API, below any prefix: requests of it are answered 404."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
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
