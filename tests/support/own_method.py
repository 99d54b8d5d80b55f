"""A method of a test's own: registered for as long as it is needed, with a YAML file to choose it by."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fedimb import registry
from fedimb.contracts.base import Contract


def own_groups(kind: str, name: str, text: str) -> Path:
    """A folder of configuration groups with this one YAML.

    All tests of a session that ask for the same get the same folder: another one would be composed anew, which takes
    longer than a small run.
    """
    sha = hashlib.sha256(f"{kind} {name} {text}".encode()).hexdigest()[:12]
    groups = Path(os.environ["FEDIMB_CACHE_DIR"]).parent / f"groups-{sha}"
    file = groups / kind / f"{name}.yaml"
    if not file.exists():
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return groups


@contextlib.contextmanager
def own_method(method: type, client: type, contract: Contract) -> Iterator[Path]:
    """``strategy=<the contract's name>`` is this method inside the block; yields the folder of configuration groups."""
    name = contract.name
    groups = own_groups("strategy", name, f"# @package strategy.{name}\n{{}}\n")
    with registry.isolated():
        registry.register("strategy", name)(method)
        registry.register("client", name)(client)
        registry.register("contract", name)(contract)
        yield groups
