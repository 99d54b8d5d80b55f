"""Which version of a data set a run uses, from its first message to its last.

One file per run, data/pins/<run>.json. A withdrawal writes the site's decision there: the run stops here, goes on with
the new version, or must begin anew.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from fedimb.annotation.private import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.datasets import DataVersion, named
from fedimb.errors import ConfigError, DataError

Decision = Literal["stop", "continue", "retrain"]
_RUN = re.compile(r"\w[\w.+-]{0,127}")


@dataclass(frozen=True)
class Pin:
    """A run's version.

    Attributes:
        run: the run's id.
        name, version: of the data set.
        since: when it was pinned, UTC ISO 8601.
        decision: the site's after a withdrawal from this data set; None: there was none.
        before: versions the run used before a withdrawal.
        names: other names under which the run's state, worklists or samples lie at the node.
    """

    run: str
    name: str
    version: str
    since: str
    decision: Decision | None = None
    before: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def pin(home: NodeHome, run_id: str, version: DataVersion, names: Sequence[str] = ()) -> DataVersion:
    """Tie a run to a version; repeated, the same. Returns the version.

    Args:
        run_id: what the run's folders in state/, worklists/ and cache/ are called; a withdrawal deletes them by it.
        names: other names that some of them have.

    Raises:
        ConfigError: no id of a run.
        DataError: the run has another version, or may not go on (`pinned`).
    """
    if not _RUN.fullmatch(run_id):
        raise ConfigError(f"'{run_id}' is no id of a run: letters, digits, '_', '.', '+' and '-'")
    if any(one.run == run_id for one in pins(home)):
        found = pinned(home, run_id)
        if found.version != version.version:
            raise DataError(
                f"run {run_id} uses version {found.version[:12]} of data set '{found.name}', not "
                f"{version.version[:12]} of '{version.name}': a run keeps its data; start another run"
            )
        return found
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_pin(home, Pin(run_id, version.name, version.version, now, names=tuple(names)))
    return version


def pinned(home: NodeHome, run_id: str) -> DataVersion:
    """The version a run uses at this site.

    Raises:
        ConfigError: the run was never pinned here.
        DataError: records were withdrawn and the site does not go on with this run.
    """
    found = next((one for one in pins(home) if one.run == run_id), None)
    if found is None:
        raise ConfigError(f"run {run_id} has no data at {home.site}: it never began here")
    if found.decision == "stop":
        raise DataError(
            f"records were withdrawn from '{found.name}': {home.site} takes no further part in run {run_id}"
        )
    if found.decision == "retrain":
        raise DataError(
            f"records were withdrawn from '{found.name}': {home.site} takes part only in a run that begins anew, "
            f"not in {run_id}"
        )
    return named(home, found.name, found.version)


def pins(home: NodeHome) -> list[Pin]:
    """Every run that began here, by id. DataError where a file is damaged."""
    found = []
    for path in sorted(home.file("data", "pins").glob("*.json")):
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            found.append(Pin(**{**raw, "before": tuple(raw["before"]), "names": tuple(raw["names"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}); restore it from a backup") from error
    return found


def write_pin(home: NodeHome, one: Pin) -> None:
    """Write a pin, whole or not at all."""
    path = home.folder("data", "pins") / f"{one.run}.json"
    write_private(path, json.dumps(asdict(one), indent=1).encode())


def decided(one: Pin, decision: Decision, version: str) -> Pin:
    """The pin after a withdrawal; ``version``: the new one, which a run that continues uses."""
    if decision != "continue":
        # A run that was stopped stays so, whatever a later withdrawal decides for the others.
        return one if one.decision in ("stop", "retrain") else replace(one, decision=decision)
    if one.decision in ("stop", "retrain"):
        return one
    before = one.before if one.version == version else (*one.before, one.version)
    return replace(one, decision=decision, version=version, before=before)
