"""What people at a site decide within a run: which labels they give, and which samples may leave."""

import contextlib
import os
from collections.abc import Iterator

from flwr.app import RecordDict

from fedimb import registry
from fedimb.annotation.oracles import SITE_DIR
from fedimb.deploy.home import NodeHome
from fedimb.schema import RunConfig


def of_the_site(home: NodeHome, config: RunConfig) -> RunConfig:
    """The run's configuration as far as the site lets it be.

    ``release: manual`` of node.yaml wins over a method's ``auto``, and over a ``gate`` that lets samples by unjudged:
    only what was judged comes before a person.
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
    """Worklists and outbox are in the node's folder meanwhile, whatever a run says."""
    before = os.environ.get(SITE_DIR)
    os.environ[SITE_DIR] = str(home.root)
    try:
        yield
    finally:
        del os.environ[SITE_DIR]
        if before is not None:
            os.environ[SITE_DIR] = before


def waits(content: RecordDict) -> bool:
    """Whether a reply says that a person must act first (`fedimb.contracts.base.Contract`)."""
    for record in content.array_records.values():
        if "ready" in record and not record["ready"].numpy().all():
            return True
        if "waiting" in record and record["waiting"].numpy().any():
            return True
    return False
