"""The client side of a run whose clients train different networks: a `ClientRuntime` for each kind of network."""

from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Message

from fedimb.clientapp.runtime import ClientRuntime
from fedimb.clientapp.state import StateStore
from fedimb.config.parts import contracts_of
from fedimb.config.site_models import kind_configs
from fedimb.contracts import platform as names
from fedimb.data.views import ClientData
from fedimb.errors import RunFailed
from fedimb.privacy.secrets import SIMULATED, Secrets
from fedimb.schema import RunConfig


class RuntimeByKind:
    """Handles messages with the runtime of the kind that each message names, as one `ClientRuntime` would.

    One model per kind is in memory, built when the first client of that kind is asked; clients of a kind are trained
    together where one runtime would train all together.

    Args:
        config: resolved run configuration, with ``clients.models``.
        data_of, store, n_classes, input_shape, secrets: as for `ClientRuntime`.
    """

    def __init__(
        self,
        config: RunConfig,
        data_of: Callable[[int], ClientData],
        store: StateStore,
        n_classes: int,
        input_shape: tuple[int, ...],
        secrets: Secrets = SIMULATED,
    ) -> None:
        self.config, self.store, self.contracts = config, store, contracts_of(config, at_sites=True)
        self._configs = kind_configs(config)
        self._rest = data_of, store, n_classes, input_shape, secrets
        self._runtimes: dict[str, ClientRuntime] = {}

    def of_kind(self, kind: str) -> ClientRuntime:
        """The runtime of a kind, built at first use.

        Raises:
            RunFailed: the run has no such kind.
        """
        if kind not in self._configs:
            raise RunFailed(f"a message names the network '{kind}', and this run has {', '.join(self._configs)}")
        if kind not in self._runtimes:
            self._runtimes[kind] = ClientRuntime(self._configs[kind], *self._rest)
        return self._runtimes[kind]

    def handle(self, message: Message, client: int) -> Message:
        """Handle one ``train`` or ``query.<name>`` message."""
        return self.of_kind(_kind(message)).handle(message, client)

    def ahead_clients(self) -> int:
        """See `ClientRuntime.ahead_clients`: the fewest of all kinds."""
        return min(self.of_kind(kind).ahead_clients() for kind in self._configs)

    def work_ahead(self, instructions: Sequence[tuple[int, Message]]) -> None:
        """See `ClientRuntime.work_ahead`: the clients of each kind together."""
        by_kind: dict[str, list[tuple[int, Message]]] = {}
        for client, message in instructions:
            by_kind.setdefault(_kind(message), []).append((client, message))
        for kind, own in by_kind.items():
            self.of_kind(kind).work_ahead(own)


def runtime_of(
    config: RunConfig,
    data_of: Callable[[int], ClientData],
    store: StateStore,
    n_classes: int,
    input_shape: tuple[int, ...],
    secrets: Secrets = SIMULATED,
) -> ClientRuntime | RuntimeByKind:
    """The runtime of a run's clients: of one network, or of one for each kind."""
    kind: type[ClientRuntime] | type[RuntimeByKind]
    kind = ClientRuntime if config.clients.models is None else RuntimeByKind
    return kind(config, data_of, store, n_classes, input_shape, secrets)


def _kind(message: Message) -> str:
    step: dict[str, Any] = dict(message.content.config_records[names.STEP])
    return str(step[names.KIND])
