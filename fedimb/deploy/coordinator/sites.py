"""The sites of a deployment: added, given a new key, removed. Each writes that site's file and no other's.

The folder says who *should* take part; `fedimb.deploy.coordinator.registration` brings a running SuperLink to it.
"""

from pathlib import Path

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.joining import JoinFile, check_site, read_join, write_join
from fedimb.errors import ConfigError, nearest


def add_site(deployment: Deployment, join: JoinFile) -> None:
    """Take a site in: writes ``sites/SITE.join.json``. The same file twice changes nothing.

    Raises:
        ConfigError: the site is there with another key, or another site has this key.
    """
    known = joined(deployment)
    if (there := known.get(join.site)) is not None and there.key_fingerprint != join.key_fingerprint:
        raise ConfigError(
            f"{join.site} is here with another key ({there.key_fingerprint}): if the site made a new one, "
            f"fedimb deploy rotate; if this is another hospital, it needs another name"
        )
    _refuse_shared_key(join, known)
    if there is None:
        write_join(_file(deployment, join.site), join)


def rotate(deployment: Deployment, join: JoinFile) -> None:
    """Replace a site's key by the one in a new join file.

    Raises:
        ConfigError: no such site, the same key again, or a key another site has.
    """
    known = joined(deployment)
    if known[_known(join.site, known)].key_fingerprint == join.key_fingerprint:
        raise ConfigError(f"{join.site} has this very key already: at the site, fedimb node rotate makes a new one")
    _refuse_shared_key(join, known)
    write_join(_file(deployment, join.site), join)


def remove_site(deployment: Deployment, site: str) -> None:
    """Leave a site out from now on: removes its join file. Runs it took part in keep their records.

    Raises:
        ConfigError: no such site.
    """
    _file(deployment, _known(site, joined(deployment))).unlink()


def joined(deployment: Deployment) -> dict[str, JoinFile]:
    """The sites added, by name, sorted."""
    found = {site: read_join(_file(deployment, site)) for site in deployment.sites()}
    for site, join in found.items():
        if join.site != site:
            raise ConfigError(f"{_file(deployment, site)} is of site '{join.site}': files are not to be renamed")
    return found


def _file(deployment: Deployment, site: str) -> Path:
    return deployment.folder("sites") / f"{check_site(site)}.join.json"


def _known(site: str, known: dict[str, JoinFile]) -> str:
    if site not in known:
        raise ConfigError(f"no site '{site}' here.{nearest(site, known) or ' None was added yet.'}")
    return site


def _refuse_shared_key(join: JoinFile, known: dict[str, JoinFile]) -> None:
    for site, other in known.items():
        if site != join.site and other.key_fingerprint == join.key_fingerprint:
            raise ConfigError(f"{join.site} sent the key of {site}: each node makes its own with fedimb node init")
