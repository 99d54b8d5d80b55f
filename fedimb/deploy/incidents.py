"""Error details stay at the site: the coordinator gets an error code, the phase, the site and an incident id.

The traceback, with file names and values, is written to ``logs/incidents/<id>.txt`` in the node's folder, readable by
its owner only. Stock Flower 1.41 would send the exception's text; the generic texts follow Fed-BioMed.
"""

import logging
import secrets
import traceback

from fedimb.annotation.private import write_private
from fedimb.deploy.audit_log import utc_now
from fedimb.deploy.home import NodeHome
from fedimb.errors import FedimbError

SHARING_REFUSED = 1303
"""The site's sharing policy blocks a record."""
INCIDENT = 1304
"""Something failed at the site."""
NOT_APPROVED = 1305
"""The site has not approved a study plan that covers this run."""
WAITING = 1306
"""A person at the site must act first."""
ORDER_REFUSED = 1307
"""The message is not the coordinator's: not signed, altered, for another site, or sent before."""
OVER_BUDGET = 1320
"""The site's ledger: asked before with another message, or more often than the plan or the site's budget covers."""

log = logging.getLogger("fedimb")


class Shareable(FedimbError):
    """An error whose text may be sent to the coordinator: it contains no path, value or patient.

    Args:
        code: one of this module's error codes.
        text: sent to the coordinator unchanged.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def keep_incident(home: NodeHome, phase: str, run: str, cause: BaseException | str) -> str:
    """Write the details to the site's own folder and return the incident's id (8 hex digits).

    Never raises: if the file cannot be written (a full disk, say), the details go to the node's own log.

    Args:
        phase: type of the message that was being handled.
        run: the run's name at the site.
        cause: an exception, with its traceback, or a text.
    """
    name = secrets.token_hex(4)
    details = cause if isinstance(cause, str) else "".join(traceback.format_exception(cause))
    text = f"incident {name}\ntime     {utc_now()}\nphase    {phase}\nrun      {run}\n\n{details}\n"
    try:
        write_private(home.folder("logs", "incidents") / f"{name}.txt", text.encode(errors="backslashreplace"))
    except OSError as error:
        log.error("incident %s could not be written (%s): %s", name, error, details)
    return name


def masked_incident(site: str, phase: str, incident: str) -> str:
    """The text about an incident that the coordinator gets."""
    return f"{site} failed in {phase} (incident {incident}): ask the site for its logs/incidents/{incident}.txt"
