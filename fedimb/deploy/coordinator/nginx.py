"""nginx in front of the SuperLink: its configuration, from deploy.yaml and the sites that were added, and its command.

Limits follow what a node does. It has at most two objects under way, a heartbeat and a poll, so a few calls at once are
enough; Flower cuts arrays into pieces of 5 MiB, so a large model needs no large body. Addresses are not sites: several
hospitals may share one, with strangers beside them. So each site's limits are of its own at each address, and the
limits per address are for calls without a site's key only.
"""

import contextlib
import ipaddress
import os
import pwd
import resource
import shutil
import subprocess

from fedimb.deploy import units
from fedimb.deploy.coordinator import gate, superlink
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.sites import joined_sites
from fedimb.errors import ConfigError, RunFailed

FLEET_CALLS = (
    *("activate-node", "deactivate-node", "send-node-heartbeat"),
    *("pull-messages", "push-messages", "confirm-message-received"),
    *("get-run", "get-fab", "push-object", "pull-object"),
)
"""The calls a registered node makes. register-node and unregister-node are reserved for the coordinator."""

CALLS_PER_S = 200
"""Calls per second that the sites share. An estimate, not a measurement: a Python gRPC server of one process takes some
milliseconds for a small call. Measure it on your machine, and set ``limits.calls_per_s``.
"""
_FEWEST_PER_S = 20
_OTHER_FILES = 128  # logs, listening sockets and what nginx itself needs, beside connections


def nginx_config(deployment: Deployment) -> str:
    """nginx.conf of this deployment, with the sites that were added.

    It listens on loopback only if the host name is loopback, else on every address.
    """
    config, limits = deployment.config, deployment.config.limits
    keys = {gate.header_key(join.public_key): site for site, join in joined_sites(deployment).items()}
    rate = site_rate(deployment)
    connections = most_connections(deployment)
    return units.render(
        "nginx.conf.tmpl",
        listen=f"{superlink.LOOPBACK}:{config.port}" if is_loopback(config.host) else str(config.port),
        calls="|".join(FLEET_CALLS),
        superlink_port=config.superlink_port,
        gate="/".join(gate.SOCKET),
        sites="\n".join(f'        "{key}" {site};' for key, site in keys.items()),
        files=connections + _OTHER_FILES,
        connections=connections,
        header_s=limits.header_s,
        body_s=limits.body_s,
        body_bytes=limits.body_mb * 1_000_000,
        at_once=limits.calls_at_once,
        member_rate=rate,
        member_burst=100 * rate,
        member_delay=10 * rate,
        stranger_rate=limits.stranger_calls_per_s,
        stranger_burst=20 * limits.stranger_calls_per_s,
        strangers_rate=10 * limits.stranger_calls_per_s,
        strangers_burst=100 * limits.stranger_calls_per_s,
    )


def site_rate(deployment: Deployment) -> int:
    """Calls per second of one site: as set, else an equal share of what a SuperLink answers."""
    sites = max(1, len(deployment.sites()))
    return deployment.config.limits.calls_per_s or max(_FEWEST_PER_S, CALLS_PER_S // sites)


def most_connections(deployment: Deployment) -> int:
    """Connections of one nginx worker: as set, as far as this account may open so many files."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = deployment.config.limits.connections
    return wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed - _OTHER_FILES)


def limits_line(deployment: Deployment) -> str:
    """What nginx lets through, in one line."""
    limits = deployment.config.limits
    return (
        f"bodies of {limits.body_mb} MB; per site and address {limits.calls_at_once} calls at once and "
        f"{site_rate(deployment)} per second; {limits.stranger_calls_per_s} per second for anybody else "
        "(limits: in deploy.yaml)"
    )


def limit_warnings(deployment: Deployment) -> list[str]:
    """One line for each limit that this machine cannot keep."""
    wanted, possible = deployment.config.limits.connections, most_connections(deployment)
    if possible >= wanted:
        return []
    return [
        f"nginx holds {possible} connections per worker, not {wanted} (limits.connections in deploy.yaml), because "
        f"this account may open only {possible + _OTHER_FILES} files: raise its hard limit (LimitNOFILE= in the "
        "systemd unit)"
    ]


def nginx_command(deployment: Deployment, *words: str) -> list[str]:
    """nginx's command line, run unprivileged in the deployment's folder.

    Raises ConfigError if nginx is not installed.
    """
    # Debian keeps it where an ordinary user's PATH does not look.
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ConfigError(
            "nginx is not installed: run sudo apt-get install nginx && sudo systemctl disable --now nginx "
            "(only the program is needed; fedimb runs it from the deployment's folder)"
        )
    as_root = ["-g", f"user {pwd.getpwuid(0).pw_name};"] if os.geteuid() == 0 else []
    return [found, "-p", f"{deployment.root}/", "-e", "logs/nginx-error.log", "-c", "nginx.conf", *as_root, *words]


def write_config(deployment: Deployment) -> None:
    """Write nginx.conf."""
    for name in ("logs", "state/nginx"):
        deployment.folder(*name.split("/"))
    deployment.file("nginx.conf").write_text(nginx_config(deployment), encoding="utf-8")


def check_config(deployment: Deployment) -> None:
    """Let nginx check nginx.conf. Raises RunFailed with nginx's words if it refuses."""
    _run(deployment, "-t", "-q")


def reload(deployment: Deployment) -> None:
    """Let a running nginx read a new nginx.conf. Calls under way end as they began.

    Raises RunFailed if it refuses; it then goes on as before.
    """
    write_config(deployment)
    check_config(deployment)
    _run(deployment, "-s", "reload")


def rotate_logs(deployment: Deployment, most_bytes: int) -> None:
    """Keep one old file of each of nginx's logs once it is large: a stranger's refused calls are lines in them."""
    logs = [deployment.file("logs", f"{name}.log") for name in ("refused", "nginx-error")]
    large = [log for log in logs if log.is_file() and log.stat().st_size > most_bytes]
    for log in large:
        log.replace(log.with_suffix(".log.1"))
    if large:
        _run(deployment, "-s", "reopen")


def _run(deployment: Deployment, *words: str) -> None:
    command = nginx_command(deployment, *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=deployment.root)
    if done.returncode:
        raise RunFailed(f"nginx refuses nginx.conf: {' '.join(done.stderr.split())}")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"
