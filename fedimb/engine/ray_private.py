"""Every private Ray name fedimb uses, in one place that a test checks against the installed version.

Ray allows its head 30 seconds to start, and starts five Python processes at once that each import Ray; on a busy
machine that is not enough. Three of them are not needed here: the autoscaler's monitor (one machine), the log monitor
(the driver does not read workers' logs) and the dashboard (off). Without them a head starts in half the time.
"""

import contextlib
from collections.abc import Iterator
from typing import Any


def _nothing(self: object, **options: object) -> None:
    """Replaces a method that starts a helper process."""


def _no_dashboard(self: Any, **options: Any) -> None:
    self._webui_url = None


UNUSED = {"start_monitor": _nothing, "start_log_monitor": _nothing, "start_api_server": _no_dashboard}
"""Methods of Ray's Node that a private head does not need, and their replacements."""


@contextlib.contextmanager
def lean_head() -> Iterator[None]:
    """While active, a head that ``ray.init`` starts runs only the processes that fedimb uses.

    A Ray version that lacks one of the names (ray is pinned; a user may have another) starts that process as usual.
    """
    from ray._private.node import Node

    before = {name: getattr(Node, name) for name in UNUSED if hasattr(Node, name)}
    try:
        for name in before:
            setattr(Node, name, UNUSED[name])
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)
