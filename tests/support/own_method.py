"""A method of a test's own: registered for as long as it is needed, with a YAML file to choose it by."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fedimb import registry
from fedimb.contracts.base import Contract


@contextlib.contextmanager
def own_method(folder: Path, method: type, client: type, contract: Contract) -> Iterator[Path]:
    """``strategy=<the contract's name>`` is this method inside the block; yields the folder of configuration groups."""
    name, groups = contract.name, folder / "groups"
    (groups / "strategy").mkdir(parents=True, exist_ok=True)
    (groups / "strategy" / f"{name}.yaml").write_text(f"# @package strategy.{name}\n{{}}\n")
    with registry.isolated():
        registry.register("strategy", name)(method)
        registry.register("client", name)(client)
        registry.register("contract", name)(contract)
        yield groups
