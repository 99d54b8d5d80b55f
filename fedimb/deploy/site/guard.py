"""A guard in front of Flower's executor at a node: it refuses code from the network before it is unpacked.

Flower 1.41 starts ``flwr-clientapp`` (or ``flwr-agentapp``, ...) by name for every message; that program unpacks and
imports the run's bundle (``flwr/supernode/runtime/run_clientapp.py``). `write_shims` makes a folder of programs with
those names, each of which runs this module. The folder comes first on PATH, and folders with Flower's own programs are
removed from PATH, so nothing else can be started. The bundle must be the one this installation ships (`bundle_hash`),
and even then it is not unpacked: the installed `fedimb.deploy.site.app:app` handles the message. Anything else leaves
one line in the audit log, and the coordinator gets an error that contains nothing about the site.
"""

import hashlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.bundle_hash import ForeignBundle, bundle_sha, check_bundle
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import INCIDENT, keep_incident, masked_incident
from fedimb.errors import FedimbError

if TYPE_CHECKING:
    from flwr.app import Context, Error, Message
    from flwr.clientapp.typing import ClientAppCallable

CLIENT_APP = "flwr-clientapp"
SUPEREXEC = "flower-superexec"
REFUSED_TASKS = ("flwr-agentapp", "flwr-serverapp", "flwr-simulation", "flwr-model", "flwr-connector")
PROGRAMS = (CLIENT_APP, *REFUSED_TASKS)
"""All programs that Flower's executor may start. Each is replaced by a shim."""

FOREIGN_CODE = 1310
"""Error code of the reply to a message whose bundle or task this site refuses."""

LAST_MESSAGE = ("flwr", "last-message.json")
_LOG = logging.getLogger("fedimb.deploy.site.guard")


def write_shims(home: NodeHome) -> Path:
    """Write the shims that replace Flower's programs. Returns their folder, which comes first on PATH.

    They are written at every start, for this Python: a file in the package could lose its executable bit or its path.
    """
    folder = home.folder("flwr", "shims")
    for name in (*PROGRAMS, SUPEREXEC):
        words = [sys.executable, "-P", "-m", "fedimb.deploy.site.guard", name]
        temporary = folder / f".{name}"
        temporary.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        temporary.chmod(0o700)
        temporary.replace(folder / name)
    return folder


def append_audit(home: NodeHome, kind: str, facts: dict[str, object]) -> None:
    """Append a line to the site's audit log."""
    AuditLog(home.file("audit.jsonl")).append(kind, facts)


class Guard:
    """Checks one task from Flower; refuses it, or has the installed app handle it.

    Args:
        home: the node's folder.
        task: the program Flower wants to start.
        audit: writes an audit line: ``audit(home, kind, facts)``.
        app: returns the installed ClientApp; called when it is needed.
    """

    def __init__(
        self,
        home: NodeHome,
        task: str,
        audit: Callable[[NodeHome, str, dict[str, object]], None] = append_audit,
        app: "Callable[[], ClientAppCallable] | None" = None,
    ) -> None:
        self.home, self.task = home, task
        self._audit, self._app = audit, app or _installed_app
        self._refused: str | None = None

    def check(self, bundle: bytes, skip_prompt: bool = True) -> None:
        """Replaces Flower's unpacking: accept only the installed bundle, for a ClientApp.

        Raises:
            ForeignBundle: for everything else, after the audit line was written.
        """
        try:
            if self.task != CLIENT_APP:
                raise ForeignBundle(f"it asks for {self.task}, but a node runs only {CLIENT_APP}")
            check_bundle(bundle)
        except ForeignBundle as error:
            self._refused = str(error)
            self._write_refusal(bundle)
            raise

    def _write_refusal(self, bundle: bytes) -> None:
        _LOG.error("refused a bundle before unpacking it: %s", self._refused)
        facts: dict[str, object] = {
            "task": self.task,
            "reason": self._refused,
            "run": str(_run()),
            "bundle_sha256": hashlib.sha256(bundle).hexdigest(),
            "bundle_bytes": len(bundle),
            "installed": bundle_sha(),
        }
        try:
            self._audit(self.home, "refused", facts)
        except (OSError, FedimbError):
            _LOG.exception("the audit line could not be written; the bundle is refused anyway")

    def load(self, *_: object, **__: object) -> Callable[..., "ClientAppCallable"]:
        """Replaces Flower's loader: always returns the installed app, and records each message that it handles."""

        def installed(*_: object) -> "ClientAppCallable":
            if self._refused is not None:
                raise ForeignBundle(self._refused)
            limit_gpu(self.home.config.limits.gpu_share)
            app = self._app()

            def answer(message: "Message", context: "Context") -> "Message":
                self._note(message, "started")
                reply = app(message, context)
                self._note(message, "refused or failed" if reply.has_error() else "answered")
                return reply

            return answer

        return installed

    def error(self, code: int, reason: str | None = None) -> "Error":
        """Replaces Flower's Error, whose text would quote an exception raised at this site."""
        from flwr.app import Error

        if self._refused is not None:
            return Error(FOREIGN_CODE, f"{self.home.site} does not run code from the network: {self._refused}")
        cause = sys.exception() or f"Flower's code {code}: {reason}"
        incident = keep_incident(self.home, "loading the client", str(_run()), cause)
        return Error(INCIDENT, masked_incident(self.home.site, "loading the client", incident))

    def _note(self, message: "Message", outcome: str) -> None:
        facts = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": str(message.metadata.run_id),
            "type": message.metadata.message_type,
            "round": _round_of(message),
            "outcome": outcome,
        }
        path = self.home.file(*LAST_MESSAGE)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(json.dumps(facts), encoding="utf-8")
            temporary.replace(path)
        except OSError:
            _LOG.exception("%s could not be written", path)  # affects only `node status`; the round continues


def _run() -> int | None:
    from flwr.supercore.task_identity import TaskIdentity

    found: int | None = TaskIdentity._run_id
    return found


def _round_of(message: "Message") -> int | None:
    from fedimb.contracts.platform import STEP

    step = message.content.config_records.get(STEP) if message.has_content() else None
    value = None if step is None else step.get("round")
    return value if isinstance(value, int) else None


def limit_gpu(share: float | None) -> None:
    """Limit this process to ``share`` of the first GPU's memory. Does nothing without a share or a GPU."""
    if share is None:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def _installed_app() -> "ClientAppCallable":
    from fedimb.deploy.site.app import app

    return app


def run_guarded(guard: Guard, words: Sequence[str]) -> None:
    """Run Flower's own program for one message, with the guard's functions in place of unpacking, loading and errors.

    Args:
        guard: the guard of this task.
        words: the executor's command-line arguments. Installing dependencies is never allowed.

    Raises:
        SystemExit: always; this is how Flower ends its process.
    """
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    private: Any = run_clientapp
    private.install_from_fab = guard.check
    private.get_load_client_app_fn = guard.load
    private.Error = guard.error
    sys.argv = [CLIENT_APP, *(word for word in words if word != "--allow-runtime-dependency-installation")]
    flwr_clientapp()


def main(words: Sequence[str]) -> None:
    """Entry point of a shim: the program's name, then its arguments."""
    program, *rest = words
    if program == SUPEREXEC:
        from flwr.supercore.cli import flower_superexec

        sys.argv = [SUPEREXEC, *rest]
        flower_superexec()
    elif program in PROGRAMS:
        run_guarded(Guard(NodeHome.open(), program), rest)
    else:
        raise SystemExit(f"fedimb's guard replaces {', '.join(PROGRAMS)}; '{program}' is not one of them")


if __name__ == "__main__":
    main(sys.argv[1:])
