"""What changed since a run was started: a resume after a change of code or data is refused, unless it is accepted."""

import logging

from fedimb.data.federation import Federation
from fedimb.errors import DataError, FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import Present, read_identity
from fedimb.schema import RunConfig

log = logging.getLogger("fedimb")


class Changed(FedimbError):
    """The code or the data of a run are not those it was started with: names the differences."""


def check_unchanged(folder: RunFolder, config: RunConfig, federation: Federation, accept: bool) -> None:
    """Compare what the run was started with to what is there now.

    Args:
        federation: the run's own partition, of a deployment with what its sites report.
        accept: write the differences into the journal and continue. The data stay those of the run, whose copy is in
            the cache: rows of other data could not be told apart.

    Raises:
        Changed: something changed, and ``accept`` is False.
    """
    recorded = read_identity(folder.path)
    if recorded is None:
        log.warning("%s does not say which code it was started with (an older fedimb made it)", folder.path)
        return
    # The run's own copy of the data is compared with what the source gives now; sites report their versions.
    own = federation if recorded.sites else None
    try:
        changes = Present().differences(config, recorded, own)
    except DataError as error:
        log.warning("the data source cannot be opened (%s): the run continues with its own copy", error)
        changes = Present().differences(config, recorded, federation)
    if not changes:
        return
    what = "; ".join(changes)
    if not accept:
        raise Changed(
            f"{folder.path} was started with other code or data: {what}. Put them back, or start a new run; with "
            "--accept-changes it continues, the rest of it with the new code and the data it was started with, and its "
            "journal says so"
        )
    folder.journal(event="changes accepted", changes=changes)
    log.warning("%s continues although %s", folder.path, what)
