"""Add, rekey and remove the sites of a deployment. Each operation writes that site's file and no other's.

The folder says which sites *should* take part; `fedimb.deploy.coordinator.registration` updates a running SuperLink.
"""

from collections.abc import Sequence
from pathlib import Path

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.joining import JoinFile, check_site, read_join, write_join
from fedimb.errors import ConfigError, nearest


def add_site(deployment: Deployment, join: JoinFile) -> None:
    """Add a site: write ``sites/SITE.join.json``. Adding the same file again changes nothing.

    Raises:
        ConfigError: the site was added with another key, or another site has this key.
    """
    known = joined_sites(deployment)
    if (there := known.get(join.site)) is not None and there.key_fingerprint != join.key_fingerprint:
        raise ConfigError(
            f"{join.site} was already added with another key ({there.key_fingerprint}): if the site made a new key, "
            "run "
            f"fedimb deploy rotate; if this is another hospital, it needs another name"
        )
    _refuse_shared_key(join, known)
    if there is None:
        write_join(_file(deployment, join.site), join)


def rotate_key(deployment: Deployment, join: JoinFile) -> None:
    """Replace a site's key with the one in a new join file.

    Raises:
        ConfigError: there is no such site, the key is the old one, or another site has it.
    """
    known = joined_sites(deployment)
    if known[_require_known(join.site, known)].key_fingerprint == join.key_fingerprint:
        raise ConfigError(f"{join.site} already has this key: run fedimb node rotate at the site to make a new one")
    _refuse_shared_key(join, known)
    write_join(_file(deployment, join.site), join)


def remove_site(deployment: Deployment, site: str) -> None:
    """Remove a site by deleting its join file. Runs it took part in keep their records.

    Raises:
        ConfigError: there is no such site.
    """
    _file(deployment, _require_known(site, joined_sites(deployment))).unlink()


def joined_sites(deployment: Deployment) -> dict[str, JoinFile]:
    """Join files of the sites that were added, by name, sorted."""
    found = {site: read_join(_file(deployment, site)) for site in deployment.sites()}
    for site, join in found.items():
        if join.site != site:
            raise ConfigError(f"{_file(deployment, site)} belongs to site '{join.site}': do not rename join files")
        _refuse_shared_key(join, found)
    return found


def _file(deployment: Deployment, site: str) -> Path:
    return deployment.folder("sites") / f"{check_site(site)}.join.json"


def planned_keys(deployment: Deployment, only: Sequence[str] = ()) -> dict[str, str]:
    """Public key by site, for a study plan.

    Args:
        only: the sites that take part (default: all that were added).

    Raises:
        ConfigError: no site was added, or one of ``only`` is not a site or is given twice.
    """
    joined = joined_sites(deployment)
    if not joined:
        raise ConfigError(f"{deployment.root} has no sites: add one with fedimb deploy add-site SITE.join.json")
    if len(set(only)) < len(only):
        raise ConfigError(f"--sites {','.join(only)}: give each site once")
    return {site: joined[_require_known(site, joined)].public_key.strip() for site in only or joined}


def _require_known(site: str, known: dict[str, JoinFile]) -> str:
    if site not in known:
        raise ConfigError(f"unknown site '{site}'.{nearest(site, known) or ' No site has been added yet.'}")
    return site


def _refuse_shared_key(join: JoinFile, known: dict[str, JoinFile]) -> None:
    for site, other in known.items():
        if site != join.site and other.key_fingerprint == join.key_fingerprint:
            raise ConfigError(f"{join.site} sent the key of {site}: each node makes its own with fedimb node init")
