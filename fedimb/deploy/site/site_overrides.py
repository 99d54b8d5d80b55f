"""What a site overrides in a run's configuration: worklists are kept in its folder, and its people release samples."""

import contextlib
import os
from collections.abc import Iterator

from flwr.app import RecordDict

from fedimb import registry
from fedimb.annotation.oracles import SITE_DIR
from fedimb.deploy.home import NodeHome
from fedimb.schema import RunConfig


def apply_site_overrides(home: NodeHome, config: RunConfig) -> RunConfig:
    """The run's configuration with the site's overrides.

    ``release: manual`` in node.yaml overrides a method's ``auto``, and a ``gate`` that would pass samples unchecked:
    people are shown only samples that were checked.
    """
    if home.config.release != "manual":
        return config
    own = {
        name: args | ({"release": "manual", "gate": "enforce"} if _releases(name) else {})
        for name, args in config.strategy.items()
    }
    return config.model_copy(update={"strategy": own})


def _releases(method: str) -> bool:
    return {"release", "gate"} <= set(registry.parameters("client", method))


@contextlib.contextmanager
def site_folder(home: NodeHome) -> Iterator[None]:
    """Keep worklists and outbox in the node's folder during the block, whatever the run says."""
    before = os.environ.get(SITE_DIR)
    os.environ[SITE_DIR] = str(home.root)
    try:
        yield
    finally:
        del os.environ[SITE_DIR]
        if before is not None:
            os.environ[SITE_DIR] = before


def needs_person(content: RecordDict) -> bool:
    """Whether a reply says that a person must act first (see `fedimb.contracts.base.Contract`)."""
    for record in content.array_records.values():
        if "ready" in record and not record["ready"].numpy().all():
            return True
        if "waiting" in record and record["waiting"].numpy().any():
            return True
    return False
