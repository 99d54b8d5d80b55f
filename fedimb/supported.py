"""Systems and checkouts on which fedimb cannot work: said in one line, before an import fails somewhere below."""

from pathlib import Path

from fedimb.errors import FedimbError

LINKED = ("strategies", "clients", "configs")
"""Folders of a checkout that are links in the package; a wheel holds real folders."""


class UnsupportedSystem(FedimbError):
    """Nothing can be done here, whatever the request."""


def refusal(package: Path = Path(__file__).parent) -> str | None:
    """Why fedimb cannot work here, with the remedy; None if it can.

    Args:
        package: the folder of the package.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return (
            "this Python has no file locks (fcntl), on which run folders rest: fedimb needs Linux or macOS; on Windows "
            "use WSL 2 (docs/install.md)"
        )
    if missing := [name for name in LINKED if not (package / name).is_dir()]:
        return (
            f"{package} lacks {', '.join(missing)}: links of the checkout came out as files; check out with links (git "
            "config core.symlinks true), or install a wheel (docs/install.md)"
        )
    return None


def check() -> None:
    """Raise UnsupportedSystem if fedimb cannot work here."""
    if (reason := refusal()) is not None:
        raise UnsupportedSystem(reason)
