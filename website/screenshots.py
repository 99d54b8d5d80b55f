"""The pictures of MLflow and of the report in docs/pictures, taken of a study's folder in Chromium without a window.

fedimb compare four.yaml engine=inline             # the study of docs/notebooks/four-strategies.ipynb, tracked
python -m website.screenshots runs/four            # serves MLflow meanwhile
python -m website.screenshots runs/four --port 5000   # of an MLflow that is already there
"""

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fedimb.tracking.store import PORT, SQLITE, charts_link

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
LARGEST = 200_000
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_START_S = 300.0
_QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync")
_OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-quic")


def shot(url: str, file: Path, size: tuple[int, int], wait_ms: int) -> None:
    """Open a page in a new profile and save what it shows.

    Args:
        url: the page.
        file: the PNG to write.
        size: width and height of the window in pixels.
        wait_ms: milliseconds of the page's own clock until then, which stands while it loads.

    Raises:
        SystemExit: no Chromium, or the picture is larger than 200 kB.
    """
    chromium = next(filter(None, map(shutil.which, _NAMES)), None)
    if chromium is None:
        sys.exit(f"no Chromium on PATH: install one of {', '.join(_NAMES)}")
    with tempfile.TemporaryDirectory() as profile:
        window = f"--window-size={size[0]},{size[1]}"
        words = [f"--user-data-dir={profile}", window, f"--virtual-time-budget={wait_ms}", f"--screenshot={file}", url]
        subprocess.run([chromium, *_QUIET, *_OFFLINE, *words], check=True, capture_output=True, timeout=600)
    if file.stat().st_size > LARGEST:
        sys.exit(f"{file} has {file.stat().st_size:,} bytes; at most {LARGEST:,}")
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")


@contextlib.contextmanager
def served(output_dir: Path, port: int) -> Iterator[None]:
    """MLflow's pages of the runs below a folder, until the block ends."""
    words = [sys.executable, "-m", "fedimb", "ui", "--output-dir", str(output_dir), "--port", str(port)]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.5)
        yield
    finally:
        child.terminate()
        child.wait()


def main() -> None:
    """See the module's first lines."""
    parser = argparse.ArgumentParser(description="Take the pictures of docs/pictures.")
    parser.add_argument("study", type=Path, help="folder of a tracked study with its report")
    parser.add_argument("--port", type=int, help="of an MLflow that is already running on this machine")
    args = parser.parse_args()
    study = args.study.resolve()
    FOLDER.mkdir(exist_ok=True)
    shot((study / "report.html").as_uri(), FOLDER / "report.png", (1280, 1150), 2000)
    link = charts_link(f"{SQLITE}{study.parent / 'mlflow.db'}", study.name)[1]
    with contextlib.nullcontext() if args.port else served(study.parent, 5055):
        url = link.replace(f"//localhost:{PORT}/", f"//127.0.0.1:{args.port or 5055}/", 1)
        shot(url, FOLDER / "mlflow.png", (1280, 900), 30_000)


if __name__ == "__main__":
    main()
