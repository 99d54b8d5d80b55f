"""Run folders that were damaged, cut short, or left by an older fedimb; and what two runs must agree on."""

import json
from dataclasses import replace
from pathlib import Path

from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import read_seal, write_seal


def rows_of(folder: Path) -> list:
    """The metric lines without times."""
    lines = RunFolder(folder).metrics()
    return [(o["row"], o["step"], {k: v for k, v in o["metrics"].items() if "time/" not in k}) for o in lines]


def flip(path: Path, at: int = -1) -> None:
    """Change one bit of the byte at a position, or of the one in the middle."""
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 4
    path.write_bytes(data)


def unfinished(run: Path) -> Path:
    """The folder as a kill before the result would have left it, with both checkpoints."""
    seal = read_seal(run)
    assert seal is not None
    for name in [n for n in seal.files if n == "result.json" or n.startswith("artifacts/model")]:
        (run / name).unlink()
    kept = {n: sha for n, sha in seal.files.items() if (run / n).exists()}
    write_seal(run, replace(seal, files=kept, ended=False))
    RunFolder(run).set_status("running")
    return run


def unseal(folder: Path) -> Path:
    """Remove the seal, and what says that there was one."""
    (folder / "seal.json").unlink(missing_ok=True)
    file = folder / "environment.json"
    if file.exists():
        about = json.loads(file.read_text())
        about.pop("sealed", None)
        file.write_text(json.dumps(about))
    return folder
