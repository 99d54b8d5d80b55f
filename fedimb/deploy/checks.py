"""The checks of ``fedimb doctor``. Package versions are looked up without importing: torch alone takes seconds."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

import fedimb
from fedimb.data.store import cache_dir
from fedimb.process_env import QUIET
from fedimb.tracking.store import resolve_uri, sqlite_path

_GB = 1e9
_SHM_BYTES = 600e6  # the Ray engine's object store takes 512 MiB
_TMP_BYTES = 1e9
_IMPORT_S = 60
OPTIONAL = {
    "pydicom": "DICOM files",
    "PIL": "pictures as data",
    "diffusers": "generated samples",
    "matplotlib": "pictures in run folders",
    "mlflow": "charts",
    "ray": "the parallel engine",
    "flwr_datasets": "data sets of Hugging Face",
    "scikit_posthocs": "tests over seeds",
    "statsmodels": "contrasts over data sets",
}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        level: ``ok``, ``warn`` or ``fail``.
        name: what was checked.
        found: what was found.
        remedy: what to do about it; empty if the check passed.
    """

    level: str
    name: str
    found: str
    remedy: str = ""


def all_checks(output_dir: str) -> Iterator[Check]:
    """All checks, in the order in which they are printed."""
    yield python()
    yield parts()
    yield documentation()
    yield from packages()
    yield from optional()
    yield torchvision()
    yield threads()
    yield environment_variables()
    yield from space()
    yield from folders()
    yield store(output_dir)


def python() -> Check:
    """The interpreter. It is never too old: pip refuses to install fedimb for an older one."""
    return Check("ok", "python", f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def parts() -> Check:
    """fedimb's linked folders: a checkout without symbolic links has text files in their place."""
    missing = [name for name in ("strategies", "clients", "configs") if find_spec(f"fedimb.{name}") is None]
    where = Path(fedimb.__file__).parent
    if missing:
        remedy = "check out with links (git config core.symlinks true) or install a wheel"
        return Check("fail", "fedimb", f"{where} lacks {', '.join(missing)}", remedy)
    return Check("ok", "fedimb", f"{fedimb.__version__} in {where}")


def documentation() -> Check:
    """Where the pages are that messages name as ``docs/...``: in the checkout, or installed with the wheel."""
    name, page = "documentation", "docs/index.md"
    places = [Path(fedimb.__file__).parents[1] / page]
    with contextlib.suppress(PackageNotFoundError):
        installed = distribution("fedimb").files or []
        places += [
            Path(str(file.locate())) for file in installed if file.as_posix().endswith(f"share/doc/fedimb/{page}")
        ]
    there = next((place.parent.resolve() for place in places if place.is_file()), None)
    if there is None:
        return Check(
            "warn", name, "absent", "install the wheel anew: it brings the pages that messages name (docs/...)"
        )
    return Check("ok", name, str(there))


def packages() -> Iterator[Check]:
    """Compare required packages with the ranges fedimb declares and, in a checkout, with the tested versions."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in distribution("fedimb").requires or []]
    except PackageNotFoundError:
        yield Check("warn", "packages", "fedimb is not installed, only on the path", "pip install -e '.[sim]'")
        return
    pins = _pins()
    wrong: list[Check] = []
    other: list[str] = []
    seen = 0
    for need in declared:
        extra = "" if need.marker is None or need.marker.evaluate({"extra": ""}) else "sim"
        if extra and not (need.marker and need.marker.evaluate({"extra": extra})):
            continue
        found = _version(need.name)
        if found is None:
            level, remedy = ("warn", "'fedimb[sim]'") if extra else ("fail", "fedimb")
            wrong.append(Check(level, need.name, "not installed", f"pip install {remedy}"))
            continue
        seen += 1
        if not need.specifier.contains(found, prereleases=True):
            wrong.append(Check("fail", need.name, f"{found} is not {need.specifier}", f"pip install '{need}'"))
        elif (pin := pins.get(_key(need.name))) and found.partition("+")[0] != pin:
            other.append(f"{need.name} {found} (tested: {pin})")
    yield from wrong
    if other:
        yield Check(
            "warn", "versions", ", ".join(other), "for the tested ones: pip install -c constraints.txt -e '.[sim]'"
        )
    yield Check("ok", "packages", f"{seen} of the declared versions fit")


def _key(name: str) -> str:
    return name.lower().replace("_", "-")


def _pins() -> dict[str, str]:
    """Tested versions by package name, from ``constraints.txt`` of a checkout; empty elsewhere."""
    file = Path(fedimb.__file__).parents[1] / "constraints.txt"
    if not file.is_file():
        return {}
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return {_key(name): pin for name, found, pin in (line.partition("==") for line in lines) if found}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def optional() -> Iterator[Check]:
    """Optional packages that some sources, plots and engines need. Never a failure."""
    there = [name for name in OPTIONAL if find_spec(name) is not None]
    absent = [f"{name} ({use})" for name, use in OPTIONAL.items() if name not in there]
    yield Check("ok", "optional", f"present: {', '.join(there) or 'none'}")
    if absent:
        yield Check("ok", "optional", f"absent: {', '.join(absent)}")


def torchvision() -> Check:
    """A torchvision built for another torch breaks ``import diffusers``; only importing it shows that."""
    if find_spec("torchvision") is None:
        return Check("ok", "torchvision", "absent, as it should be")
    words = [sys.executable, "-c", "import torchvision"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_IMPORT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Check("warn", "torchvision", f"not imported within {_IMPORT_S} s", "pip uninstall torchvision")
    if done.returncode == 0:
        return Check("ok", "torchvision", "imports; fedimb does not use it")
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:120]
    return Check("fail", "torchvision", f"broken, and breaks diffusers ({reason})", "pip uninstall torchvision")


def threads() -> Check:
    """Runs use one thread per worker whatever is set here, but other libraries read these variables."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = {n: os.environ[n] for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(n)}
    shown = ", ".join(f"{name}={value}" for name, value in wanted.items()) or "OMP_NUM_THREADS not set"
    found = f"{cores} cores; one torch thread per worker; {shown}"
    if any(not value.isdigit() or int(value) > cores for value in wanted.values()):
        return Check("warn", "threads", found, "export OMP_NUM_THREADS=1")
    return Check("ok", "threads", found)


def environment_variables() -> Check:
    """Variables that stop Flower, Ray and MLflow from sending telemetry or joining another cluster."""
    changed = [f"{name}={os.environ.get(name)}" for name, value in QUIET.items() if _differs(name, value)]
    if changed:
        remedy = "unset them, unless this is intended"
        return Check("warn", "switches", f"changed in this shell: {', '.join(changed)}", remedy)
    return Check("ok", "switches", f"no telemetry, no downloads: {len(QUIET)} variables as fedimb wants them")


def _differs(name: str, value: str) -> bool:
    return os.environ.get(name, "").lower() != value


def space() -> Iterator[Check]:
    """Free space in shared memory, for Ray's objects, and in the folders for temporary files."""
    places = {"/dev/shm": (_SHM_BYTES, "engine=inline does not need it; in a container use --shm-size=1g")}
    for temp in dict.fromkeys(["/tmp", tempfile.gettempdir()]):  # Ray's sockets need a short path: /tmp
        places[temp] = (_TMP_BYTES, "free some space, for example with `fedimb runs gc`")
    for place, (least, remedy) in places.items():
        if not Path(place).is_dir():
            yield Check("warn", place, "does not exist", remedy)
            continue
        free = shutil.disk_usage(place).free
        level = "ok" if free >= least else "warn"
        yield Check(level, place, f"{free / _GB:.1f} GB free", "" if level == "ok" else remedy)


def folders() -> Iterator[Check]:
    """The cache folder must be writable; the data folder, if one is set, readable."""
    cache = cache_dir().parent
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    name = "FEDIMB_CACHE_DIR" if os.environ.get("FEDIMB_CACHE_DIR") else "cache"
    if os.access(place, os.W_OK | os.X_OK) and place.is_dir():
        yield Check("ok", name, f"{cache}, {shutil.disk_usage(place).free / _GB:.1f} GB free")
    else:
        yield Check("fail", name, f"{cache} cannot be written", "set FEDIMB_CACHE_DIR to a folder you can write to")
    data = os.environ.get("FEDIMB_DATA_DIR")
    if not data:
        yield Check("ok", "FEDIMB_DATA_DIR", "not set: data paths are relative to the working folder")
    elif os.access(data, os.R_OK | os.X_OK) and Path(data).is_dir():
        yield Check("ok", "FEDIMB_DATA_DIR", data)
    else:
        yield Check("fail", "FEDIMB_DATA_DIR", f"{data} cannot be read", "fix or unset it")


def store(output_dir: str) -> Check:
    """The default MLflow database of the output folder: missing until the first run, readable afterwards."""
    uri = resolve_uri(None, output_dir)
    path = sqlite_path(uri)
    if path is None or not path.exists():
        return Check("ok", "mlflow store", f"none yet in {output_dir}: the first run creates it")
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            count = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        remedy = "move it away, then `fedimb track sync RUN` fills a new one"
        return Check("fail", "mlflow store", f"{path} cannot be read ({error})", remedy)
    return Check("ok", "mlflow store", f"{path}, {count} MLflow runs")
