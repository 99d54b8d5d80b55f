"""The Makefile's promises, with a Python that only writes down what it was asked to do: no install, no network."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = {
    "deploy-demo",
    "gpu-check",
    "kill-matrix",
    "install",
    "update",
    "resolve",
    "docs",
    "notebooks",
    "demo",
    "test",
    "test-slow",
    "lint",
    "format",
    "clean",
    "help",
}
# `python -m venv DIR` leaves a python that logs its arguments, fails while the file FAIL exists, or is killed.
FAKE = """#!/bin/sh
case "$1" in
-c) exit {old} ;;
-m) for last in "$@"; do :; done
    echo "venv $*" >> "{log}"
    mkdir -p "$last/bin"
    printf '#!/bin/sh\\necho "$*" >> "{log}"\\n' > "$last/bin/python"
    printf 'for i in $(seq 40); do echo "$* noise $i"; done; echo warning >&2\\n' >> "$last/bin/python"
    printf 'case "$*" in *torch*) test ! -e "{fail}" || exit 7 ;; esac\\n' >> "$last/bin/python"
    chmod +x "$last/bin/python" ;;
esac
"""


class Checkout:
    """A folder with the Makefile and a pretended Python beside it."""

    def __init__(self, folder: Path, old: int = 0) -> None:
        self.folder, self.log, self.fail = folder, folder / "log", folder / "FAIL"
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        self.python = folder / "fakepython"
        self.python.write_text(FAKE.format(log=self.log, fail=self.fail, old=old))
        self.python.chmod(0o755)

    def make(self, *words: str) -> "subprocess.CompletedProcess[str]":
        # An outer `make test ARGS=...` hands its variables on: they are not this one's.
        outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "ARGS", "VENV", "TORCH_INDEX")
        environment = {k: v for k, v in os.environ.items() if k not in outer}
        command = ["make", *words, f"PYTHON={self.python}"]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)

    def asked(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_help_is_the_default_and_lists_every_target(checkout: Checkout) -> None:
    shown = checkout.make().stdout
    assert set(re.findall(r"^  make ([a-z-]+) +\S", shown, re.MULTILINE)) == TARGETS
    assert checkout.make("help").stdout == shown
    assert checkout.asked() == []


def test_torch_comes_before_the_project_and_all_is_constrained(checkout: Checkout) -> None:
    assert checkout.make("install").returncode == 0
    venv, *installs = checkout.asked()
    assert venv == "venv -m venv --clear .venv"
    assert [i for i, line in enumerate(installs) if line.endswith(" torch")] == [1]
    assert installs[2].endswith("--no-build-isolation -e .[sim,dev]")
    assert all("-c constraints.txt" in line for line in installs)


def test_an_install_says_one_line_per_phase_and_keeps_the_rest_in_a_log(checkout: Checkout) -> None:
    done = checkout.make("install")
    assert done.stdout.splitlines() == [
        "creating .venv: some minutes, once",
        "installing pip",
        "installing torch",
        "installing fedimb and its tools",
        "done; pip's output is in .venv/install.log",
    ]
    assert done.stderr == ""
    kept = (checkout.folder / ".venv" / "install.log").read_text()
    assert kept.count("noise 40") == 3
    assert "warning" in kept
    assert checkout.make("install").stdout.splitlines() == ["make: Nothing to be done for 'install'."]


def test_a_phase_that_fails_shows_the_end_of_its_log_and_keeps_its_exit_code(checkout: Checkout) -> None:
    checkout.fail.touch()
    failed = checkout.make("install")
    assert failed.stdout.splitlines()[-1] == "installing torch"
    *shown, place, make = failed.stderr.splitlines()
    assert len(shown) == 20
    assert shown[-2].endswith("torch noise 40")
    assert place == "installing torch failed; all of pip's output is in .venv/install.log"
    assert make.endswith("Error 7")
    assert "installing fedimb" not in failed.stdout


def test_the_environment_is_made_once_and_again_when_the_pins_change(checkout: Checkout) -> None:
    assert checkout.make("install").returncode == 0
    assert checkout.asked()
    assert checkout.make("install").returncode == 0
    assert checkout.asked() == []
    for name in ("pyproject.toml", "constraints.txt"):
        stamp = checkout.folder / ".venv" / ".installed"
        later = stamp.stat().st_mtime + 10
        os.utime(checkout.folder / name, (later, later))
        assert checkout.make("install").returncode == 0
        asked = checkout.asked()
        assert len(asked) == 3, "an existing environment is updated in place"
        assert not [line for line in asked if line.startswith("venv ")]
        os.utime(checkout.folder / name, (0, 0))


def test_an_install_that_failed_leaves_no_stamp_and_starts_afresh(checkout: Checkout) -> None:
    checkout.fail.touch()
    assert checkout.make("test").returncode != 0
    assert not (checkout.folder / ".venv" / ".installed").exists()
    assert not [line for line in checkout.asked() if "pytest" in line]
    checkout.fail.unlink()
    assert checkout.make("install").returncode == 0
    assert checkout.asked()[0].startswith("venv "), "a half-filled environment must not be trusted"


def test_an_update_that_failed_is_not_taken_for_done(checkout: Checkout) -> None:
    assert checkout.make("install").returncode == 0
    later = (checkout.folder / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(checkout.folder / "pyproject.toml", (later, later))
    checkout.fail.touch()
    assert checkout.make("install").returncode != 0
    assert not (checkout.folder / ".venv" / ".installed").exists()


def test_an_old_python_is_refused_in_one_line_with_the_remedy(tmp_path: Path) -> None:
    old = Checkout(tmp_path, old=1)
    refused = old.make("demo")
    assert refused.returncode != 0
    said = refused.stderr.splitlines()[0]
    assert "3.11" in said
    assert "PYTHON=python3.11" in said
    assert not (tmp_path / ".venv").exists()


def test_the_targets_run_the_right_tests(checkout: Checkout) -> None:
    assert checkout.make("install").returncode == 0
    checkout.asked()
    checkout.make("test")
    checkout.make("test-slow", "ARGS=-x")
    assert checkout.asked() == [
        "-m pytest -n 2 --dist loadfile -m not slow and not alone",
        "-m pytest -m alone and not slow",
        "-m pytest -m slow -x",
    ]


def test_the_site_is_built_strictly_and_then_checked(checkout: Checkout) -> None:
    assert checkout.make("docs").returncode == 0
    *_, install, build, check = checkout.asked()
    assert install.endswith("--no-build-isolation -e .[docs]")
    assert "-c constraints.txt" in install
    assert build == "-m mkdocs build --strict --quiet"
    assert check == "-m website.check build/site"
    assert checkout.make("docs").returncode == 0
    assert checkout.asked() == [build, check], "its packages are installed once"


def test_pins_are_asked_for_and_not_installed(checkout: Checkout) -> None:
    assert checkout.make("install").returncode == 0
    checkout.asked()
    assert checkout.make("update", "resolve").returncode == 0
    assert checkout.asked() == [".ci/pins.py update", ".ci/pins.py resolve 3.12 3.13"]


def test_switches_reach_the_commands(checkout: Checkout) -> None:
    assert checkout.make("install").returncode == 0
    inner = checkout.folder / ".venv" / "bin" / "python"
    inner.write_text(f'#!/bin/sh\nenv > "{checkout.log}"\n')
    assert checkout.make("test").returncode == 0
    seen = set(checkout.asked())
    wanted = {
        "FLWR_TELEMETRY_ENABLED=0",
        "FLWR_DISABLE_UPDATE_CHECK=1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1",
        "RAY_USAGE_STATS_ENABLED=0",
        "MLFLOW_DISABLE_TELEMETRY=true",
        "RAY_ADDRESS=local",
        "HF_HUB_OFFLINE=1",
        "OMP_NUM_THREADS=1",
    }
    assert wanted <= seen


def test_clean_keeps_the_runs(checkout: Checkout) -> None:
    for name in (".venv", "build", ".mypy_cache", "fedimb/__pycache__", "runs/one"):
        (checkout.folder / name).mkdir(parents=True)
    assert checkout.make("clean").returncode == 0
    left = {file.name for file in checkout.folder.iterdir()}
    assert not left & {".venv", "build", ".mypy_cache"}
    assert not (checkout.folder / "fedimb" / "__pycache__").exists()
    assert (checkout.folder / "runs" / "one").is_dir()
