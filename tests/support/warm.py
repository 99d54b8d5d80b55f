"""A Python that has imported fedimb once and forks for every job: a job then costs about a second, an import ten."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_SERVER = """
import importlib, json, os, runpy, sys

for name in sys.argv[1:]:
    importlib.import_module(name)
from fedimb.config.compose import compose
from fedimb.rundir.code import code_of
from fedimb.rundir.environment import environment

compose([])
code_of(())
environment()

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["cwd"])
        for number, name in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.argv = job["argv"]
        code = 1
        try:
            if sys.argv[0] == "-m":
                sys.argv = sys.argv[1:]
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                exec(compile(job["argv"][0], "<job>", "exec"), {"__name__": "__main__"})
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""
_WARM = (
    *("scipy.special", "sklearn.datasets", "matplotlib.backends.backend_agg", "matplotlib.layout_engine"),
    *("fedimb.clientapp.app", "fedimb.serverapp.launch", "fedimb.cli.main"),
)
CLI = "import sys; from fedimb.cli import main; sys.exit(main())"


class WarmPython:
    """Runs jobs one after another, each in a fork with its own working directory and output.

    Args:
        paths: folders put before everything else on ``sys.path``, entry points of installed packages included.
        imports: what to import besides fedimb.
    """

    def __init__(self, *paths: Path, imports: Sequence[str] = ()) -> None:
        before = [str(p) for p in paths] + [p for p in (os.environ.get("PYTHONPATH", ""),) if p]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(before)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *_WARM, *imports],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _say(self, line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def __call__(self, cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` (code and its words, or ``-m`` with a module) in ``cwd``; a killed job has a negative code."""
        out, err = cwd / ".stdout", cwd / ".stderr"
        for file in (out, err):
            file.unlink(missing_ok=True)
        self._say({"cwd": str(cwd), "out": str(out), "err": str(err), "argv": list(argv)})
        assert self._process.stdout is not None
        code = int(self._process.stdout.readline())
        texts = [file.read_text() for file in (out, err)]
        return subprocess.CompletedProcess(argv, code, *texts)

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
