"""What goes wrong at a site stays there: the coordinator reads a code, the phase, the site and an incident's id.

Traceback, file names and values lie in ``logs/incidents/<id>.txt`` of the node's folder, for its owner alone. Source:
ours, after Fed-BioMed's generic error texts; stock Flower sends the exception's text (hole F3 of its 1.41).
"""

import logging
import secrets
import traceback

from fedimb.annotation.private import write_private
from fedimb.deploy.audit_log import utc_now
from fedimb.deploy.home import NodeHome
from fedimb.errors import FedimbError

SHARING_REFUSED = 1303
"""The site's sharing policy lets a record not leave."""
INCIDENT = 1304
"""Something failed at the site."""
NOT_APPROVED = 1305
"""The site has not approved a study plan that covers this run."""
WAITING = 1306
"""A person at the site must act first."""

log = logging.getLogger("fedimb")


class Shareable(FedimbError):
    """An error whose text was written for the coordinator: it names no path, no value, no patient.

    Args:
        code: one of this module's.
        text: reaches the coordinator as it is.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def keep_incident(home: NodeHome, phase: str, run: str, cause: BaseException | str) -> str:
    """Write what happened to the site's own folder, and return the incident's id (8 hex digits).

    Never raises: where the file cannot be written (a full disk) the cause goes to the node's own log.

    Args:
        phase: the type of the message being answered.
        run: which run, in the site's words.
        cause: an exception, with its traceback, or a text.
    """
    name = secrets.token_hex(4)
    told = cause if isinstance(cause, str) else "".join(traceback.format_exception(cause))
    text = f"incident {name}\ntime     {utc_now()}\nphase    {phase}\nrun      {run}\n\n{told}\n"
    try:
        write_private(home.folder("logs", "incidents") / f"{name}.txt", text.encode(errors="backslashreplace"))
    except OSError as error:
        log.error("incident %s could not be written (%s): %s", name, error, told)
    return name


def masked(site: str, phase: str, incident: str) -> str:
    """What the coordinator reads of an incident."""
    return f"{site} failed in {phase} (incident {incident}): ask the site for its logs/incidents/{incident}.txt"
