"""Run folders as an older fedimb left them: without a seal."""

import json
from pathlib import Path


def unseal(folder: Path) -> Path:
    """Remove the seal, and what says that there was one."""
    (folder / "seal.json").unlink(missing_ok=True)
    file = folder / "environment.json"
    if file.exists():
        about = json.loads(file.read_text())
        about.pop("sealed", None)
        file.write_text(json.dumps(about))
    return folder
