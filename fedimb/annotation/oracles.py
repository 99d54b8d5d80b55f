"""Opens an oracle from its settings ``oracle: {name: ..., ...}``.

```yaml
oracle: {name: simulated}
oracle: {name: worklist, folder: sites, readers: 2, per_patient: 1, partial: wait}
```
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from flwr.app import RecordDict

from fedimb.annotation.base import Oracle
from fedimb.annotation.hidden import HiddenLabels
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.simulated import SimulatedOracle
from fedimb.annotation.worklist import WorklistOracle, check_store
from fedimb.config.load import config_sha
from fedimb.data.store import Store, open_store
from fedimb.data.views import ClientData
from fedimb.errors import ConfigError, nearest
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, seed_int

SITE_DIR = "FEDIMB_SITE_DIR"


class OracleContext(Protocol):
    """What an oracle needs from the client: implemented by `fedimb.clientapp.context.ClientContext`."""

    client: int
    config: RunConfig
    data: ClientData
    state: RecordDict


class SiteRows(Protocol):
    """What is known about a client's rows before a run: implemented by `fedimb.clientapp.context.Site`."""

    @property
    def task(self) -> str:
        """``multiclass`` or ``multilabel``."""
        ...

    @property
    def store(self) -> Store:
        """The rows on this machine."""
        ...


def open_oracle(settings: Mapping[str, object], context: OracleContext) -> Oracle:
    """Open the oracle of the client that handles a message.

    Args:
        settings: ``name`` and the oracle's own arguments.
        context: context of the message; a simulated oracle stores its questions in the context's state.

    Raises:
        ConfigError: unknown oracle or argument, or data it cannot show.
    """
    name, args = _named(settings)
    return _OPEN[name](args, context)


def check_oracle(settings: Mapping[str, object], site: SiteRows) -> None:
    """Refuse before a run starts what `open_oracle` would refuse during the run.

    Raises:
        ConfigError: as `open_oracle`; several labels per row.
        DataError: rows that a worklist cannot show, or a missing library.
    """
    name, args = _named(settings)
    if site.task != "multiclass":
        raise ConfigError(f"oracle '{name}' gives each row one class; these rows have several labels")
    _CHECK[name](args, site)


def _named(settings: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    args = dict(settings)
    name = args.pop("name", None)
    if not isinstance(name, str) or name not in _OPEN:
        raise ConfigError(f"no oracle '{name}'.{nearest(str(name), _OPEN)}")
    return name, args


def _simulated(args: dict[str, object], context: OracleContext) -> Oracle:
    _no_arguments(args)
    data = context.data
    # The store that client code sees has no labels; this one is opened only for the oracle.
    return SimulatedOracle(HiddenLabels(open_store(data.store.path), data.rows("train")), context.state)


def _no_arguments(args: dict[str, object]) -> None:
    if args:
        raise ConfigError(f"oracle 'simulated' takes no setting '{next(iter(args))}'; remove it")


def _worklist(args: dict[str, object], context: OracleContext) -> Oracle:
    settings, config = WorklistSettings.of(args), context.config
    run = f"s{config.seed}-{config_sha(config)[:8]}"  # as a run folder ends: a resumed run finds its lists
    folder = site_folder(settings, context.client) / "worklists" / run
    seed = seed_int(config.seed, Stream.QUERY, client=context.client)
    return WorklistOracle(folder, context.data.store, settings, seed)


def site_folder(settings: WorklistSettings, client: int) -> Path:
    """Where a site keeps its worklists: ``FEDIMB_SITE_DIR`` at a real site, a folder per client in a simulation."""
    if own := os.environ.get(SITE_DIR):
        return Path(own)
    return Path(settings.folder) / f"client-{client:03d}"


def _check_worklist(args: dict[str, object], site: SiteRows) -> None:
    check_store(site.store, WorklistSettings.of(args))


_OPEN: dict[str, Callable[[dict[str, object], OracleContext], Oracle]] = {
    "simulated": _simulated,
    "worklist": _worklist,
}
_CHECK: dict[str, Callable[[dict[str, object], SiteRows], None]] = {
    "simulated": lambda args, site: _no_arguments(args),
    "worklist": _check_worklist,
}
