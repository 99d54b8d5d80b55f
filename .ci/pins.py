"""constraints.txt: newer versions, and whether its pins exist for other versions of Python.

python .ci/pins.py update               # asks pip what it would install today, and writes that; run the tests then
python .ci/pins.py resolve 3.12 3.13    # is there a wheel of every pin for these, and do they fit each other there?
                                        # Nothing is installed or run
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
EXTRAS = ("sim", "dev", "docs")
OF_A_GPU = ("nvidia-", "cuda-", "triton")
"""What torch's build for GPUs brings; torch pins these itself."""


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[str]:
    """What pyproject.toml asks for: the core, its extras that are pinned, and the build system."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *(word for extra in EXTRAS for word in extras[extra])]
    return [*wanted, *project["build-system"]["requires"]]


def pip(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run pip, keeping what it says."""
    return subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)


def uv(*words: str, asked: str) -> "subprocess.CompletedProcess[str]":
    """Run uv, which resolves for a Python that is not here; ``asked``: requirements, one a line."""
    words = (sys.executable, "-m", "uv", *words)
    return subprocess.run(words, input=asked, capture_output=True, text=True, check=False)


def read() -> tuple[list[str], dict[str, str]]:
    """(the comment lines, name -> version as written)."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")], dict(
        line.split("==") for line in lines if line and not line.startswith("#")
    )


def updated(old: dict[str, str], report: dict[str, list[dict[str, dict[str, str]]]]) -> dict[str, str]:
    """The pins that pip's report gives, under the names they had; pip's own, which reports leave out, are kept.

    Raises:
        ValueError: a version exists on one machine only (1.0+local).
    """
    names = {canonical(name): name for name in old}
    found = {}
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"].split("+cpu")[0]
        if "+" in version:
            raise ValueError(f"{name}=={version}: a local version exists on one machine only")
        if not canonical(name).startswith(OF_A_GPU):
            found[names.get(canonical(name), name)] = version
    return found | {name: old[name] for name in ("pip",) if name in old and name not in found}


def update() -> int:
    """Write what pip would install today; prints what changed."""
    head, old = read()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ("install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report))
        done = pip(*words, *declared())
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return done.returncode
        new = updated(old, json.loads(report.read_text(encoding="utf-8")))
    lines = sorted((f"{name}=={version}" for name, version in new.items()), key=str.lower)
    PINS.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    for name in sorted(old.keys() | new.keys(), key=str.lower):
        if old.get(name) != new.get(name):
            print(f"{name}: {old.get(name, 'new')} -> {new.get(name, 'gone')}")
    print("written: constraints.txt. Read the changes, then make install test")
    return 0


def resolve(version: str) -> int:
    """Ask for a wheel of every pin for one version of Python, and whether the pins are all that is needed there.

    Names the pins without a wheel, and what that version needs beside them. Exit code: that of pip or uv.
    """
    _, pins = read()
    source_only: list[str] = []
    while True:
        wanted = [f"{name}=={pin}" for name, pin in pins.items() if canonical(name) not in source_only]
        with tempfile.TemporaryDirectory() as folder:
            where = ("--target", folder, "--python-version", version, "--only-binary=:all:")
            done = pip("install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", *where, *wanted)
        missing = re.search(r"No matching distribution found for ([\w.-]+)==", done.stderr)
        if done.returncode == 0 or missing is None:
            break
        source_only.append(canonical(missing[1]))
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return done.returncode
    print(f"Python {version}: {len(wanted)} of {len(pins)} pins have a wheel; not run")
    for name in source_only:
        print(f"  {name}: no wheel for {version}, pip would have to build it")
    # --no-deps asks for files alone: what a package needs only under this version of Python is found by resolving.
    wheels = [word for name in pins if canonical(name) not in source_only for word in ("--only-binary", name)]
    compiled = ("pip", "compile", "-", "-c", str(PINS), "--python-version", version, "--no-header", "--no-annotate")
    done = uv(*compiled, "--quiet", *wheels, asked="\n".join(declared()))
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return done.returncode
    known = {canonical(name) for name in pins}
    found = [line.split(" ;")[0] for line in done.stdout.splitlines()]
    beside = [
        pin for pin in found if (name := canonical(pin.split("==")[0])) not in known and not name.startswith(OF_A_GPU)
    ]
    print(
        "  resolved with all extras that are pinned: " + (f"also needs {', '.join(beside)}" if beside else "no other")
    )
    return 0


def main() -> int:
    """See the module's first lines."""
    match sys.argv[1:]:
        case ["update"]:
            return update()
        case ["resolve", *versions] if versions:
            return max(map(resolve, versions))
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
