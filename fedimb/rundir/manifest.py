"""What a run folder holds before the first round: configuration, partition with its plot, environment, rows."""

import contextlib
import ctypes
import hashlib
import json
import shutil
import uuid
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.config.load import config_sha, flatten, row_label, to_json
from fedimb.config.parts import contracts_of, prior_label, resolved_weight
from fedimb.data.federation import Federation
from fedimb.data.store import cache_dir
from fedimb.rundir import partition_picture
from fedimb.rundir.checkpoints import fixed_hashes
from fedimb.rundir.environment import environment
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import record_start, tags_of
from fedimb.rundir.origin import origin_tag
from fedimb.rundir.seal import Manifest, write_seal
from fedimb.schema import RunConfig


def return_freed_memory() -> None:
    """Return freed memory to the system: after preparing 100,000 clients' data, glibc would keep 70 MB of it."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def write_start(folder: RunFolder, config: RunConfig, federation: Federation) -> None:
    write_atomic(folder.path / "config.json", to_json(config).encode())
    federation.save(folder.path)
    folder.write_json("environment.json", environment() | {"sealed": True})
    identity = record_start(folder, config, federation)
    weight = resolved_weight(config, contracts_of(config))
    params = flatten(config) | {"resolved.aggregation_weight": weight}
    rows = []
    for calibration in config.calibration:
        label = row_label(config, calibration)
        tags = {
            "fedimb.strategy": label,
            "fedimb.seed": str(config.seed),
            "fedimb.config_sha": config_sha(config),
            "fedimb.partition_sha": federation.sha,
            "fedimb.prior": prior_label(config),
            "fedimb.calibration": calibration,
            "fedimb.sweep_id": config.study,
            "fedimb.run_id": uuid.uuid4().hex,
            **tags_of(identity),
        }
        rows.append({"label": label, "tags": tags, "params": params})
    artifacts = folder.path / "artifacts"
    artifacts.mkdir(exist_ok=True)
    for name in ("config.json", "partition.json", "environment.json"):
        shutil.copyfile(folder.path / name, artifacts / name)
    if not federation.virtual:
        _draw_partition(federation, artifacts / "partition.png")
    folder.set_status("new")
    data = (json.dumps(rows, indent=1) + "\n").encode()
    sealed = fixed_hashes(folder.path) | {"rows.json": hashlib.sha256(data).hexdigest()}
    write_seal(folder.path, Manifest(files=sealed, origin=origin_tag(config)))
    write_atomic(folder.path / "rows.json", data)  # last: a folder with rows.json is complete


def _draw_partition(federation: Federation, path: Path) -> None:
    """Plot the partition; all runs on the same partition share the plot, which takes seconds to draw."""
    names, minority = federation.class_names, federation.minority
    facts = repr((federation.counts.shape, names, minority)).encode() + federation.counts.tobytes()
    facts += Path(partition_picture.__file__).read_bytes()
    drawn = cache_dir("pictures") / f"{hashlib.sha256(facts).hexdigest()[:32]}.png"
    if not drawn.exists():
        partition_picture.partition_figure(federation.counts, names, minority, path)
        drawn.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(drawn, path.read_bytes())
    else:
        shutil.copyfile(drawn, path)
