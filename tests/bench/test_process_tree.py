"""What a command took, with everything below it."""

import os
import sys

import pytest

from fedimb.bench.process_tree import run_tree

_BURN = "import time; start = time.process_time()\nwhile time.process_time() - start < 0.3: pass"


def test_an_orphan_below_counts_and_the_exit_code_is_the_commands(tmp_path):
    starts = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {_BURN!r}]); print('left'); sys.exit(3)"
    ran = run_tree([sys.executable, "-S", "-c", starts], tmp_path / "log", os.environ, tmp_path)
    assert (ran.code, (tmp_path / "log").read_text()) == (3, "left\n")
    assert ran.whole_s > 0
    if sys.platform == "linux":
        assert ran.cpu_s > 0.3


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_is_the_trees_largest(tmp_path):
    holds = "import time; held = bytearray(b'1' * 60_000_000); time.sleep(1.2)"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    ran = run_tree([sys.executable, "-S", "-c", starts], tmp_path / "log", os.environ)
    assert 60 < ran.tree_mb < 200
