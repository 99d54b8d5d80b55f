"""Pins: which version of a data set a run uses, from its first message to its last.

One file per run, data/pins/<run>.json. A withdrawal writes the site's decision there: the run stops here, continues
with the new version, or must restart as a new run.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from fedimb.annotation.private import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.datasets import DataVersion, open_data_set
from fedimb.errors import ConfigError, DataError

Decision = Literal["stop", "continue", "retrain"]
_RUN = re.compile(r"\w[\w.+-]{0,127}")


@dataclass(frozen=True)
class Pin:
    """The data version that a run uses.

    Attributes:
        run: the run's id.
        name, version: name of the data set and its version.
        since: when the run was pinned, UTC ISO 8601.
        decision: the site's decision after a withdrawal from this data set; None if there was none.
        before: versions the run used before a withdrawal.
        names: other names under which the node stores the run's state, worklists or samples.
    """

    run: str
    name: str
    version: str
    since: str
    decision: Decision | None = None
    before: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def pin_run(home: NodeHome, run_id: str, version: DataVersion, names: Sequence[str] = ()) -> DataVersion:
    """Pin a run to a version and return the version. Pinning again to the same version changes nothing.

    Args:
        run_id: name of the run's folders in state/, worklists/ and cache/; a withdrawal deletes them by this name.
        version: the version to use.
        names: other names that some of these folders have.

    Raises:
        ConfigError: the run id is not valid.
        DataError: the run uses another version, or may not continue (`pinned_version`).
    """
    if not _RUN.fullmatch(run_id):
        raise ConfigError(f"'{run_id}' is not a valid run id: use letters, digits, '_', '.', '+' and '-'")
    if any(one.run == run_id for one in read_pins(home)):
        found = pinned_version(home, run_id)
        if found.version != version.version:
            raise DataError(
                f"run {run_id} uses version {found.version[:12]} of data set '{found.name}', not "
                f"{version.version[:12]} of '{version.name}': a run cannot change its data; start a new run"
            )
        return found
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_pin(home, Pin(run_id, version.name, version.version, now, names=tuple(names)))
    return version


def pinned_version(home: NodeHome, run_id: str) -> DataVersion:
    """The version that a run uses at this site.

    Raises:
        ConfigError: the run was never pinned here.
        DataError: records were withdrawn and the site decided not to continue this run.
    """
    found = next((one for one in read_pins(home) if one.run == run_id), None)
    if found is None:
        raise ConfigError(f"run {run_id} has no data at {home.site}: it never started here")
    if found.decision == "stop":
        raise DataError(f"records were withdrawn from '{found.name}': {home.site} no longer takes part in run {run_id}")
    if found.decision == "retrain":
        raise DataError(
            f"records were withdrawn from '{found.name}': {home.site} takes part only in a new run, not in {run_id}"
        )
    return open_data_set(home, found.name, found.version)


def read_pins(home: NodeHome) -> list[Pin]:
    """Pins of all runs that started here, sorted by run id. Raises DataError if a file is damaged."""
    found = []
    for path in sorted(home.file("data", "pins").glob("*.json")):
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            found.append(Pin(**{**raw, "before": tuple(raw["before"]), "names": tuple(raw["names"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}); restore it from a backup") from error
    return found


def write_pin(home: NodeHome, one: Pin) -> None:
    """Write a pin atomically."""
    path = home.folder("data", "pins") / f"{one.run}.json"
    write_private(path, json.dumps(asdict(one), indent=1).encode())


def apply_decision(one: Pin, decision: Decision, version: str) -> Pin:
    """The pin after a withdrawal. ``version`` is the new version, used by runs that continue."""
    if decision != "continue":
        # A stopped run stays stopped, whatever a later withdrawal decides for other runs.
        return one if one.decision in ("stop", "retrain") else replace(one, decision=decision)
    if one.decision in ("stop", "retrain"):
        return one
    before = one.before if one.version == version else (*one.before, one.version)
    return replace(one, decision=decision, version=version, before=before)
