"""What a command imports, and when: the causes of a slow start, since times depend on the machine."""

import json
import subprocess
import sys
from pathlib import Path

from small_runs import SMALL

HEAVY = ("torch", "numpy", "scipy", "sklearn", "pandas", "pydantic", "hydra", "flwr", "mlflow", "matplotlib", "ray")
OTHER_PROCESS = ("mlflow", "sqlalchemy", "alembic", "pandas", "matplotlib", "ray", "sklearn", "statsmodels")

_CHILD = """
import gc, json, subprocess, sys

started, usual = [], gc.get_threshold()
popen = subprocess.Popen

def noted(words, *args, **options):
    if any("sender_process" in word for word in words):
        started.append("after torch" if "torch" in sys.modules else "before torch")
    return popen(words, *args, **options)

subprocess.Popen = noted
from fedimb.cli import main

sys.argv = ["fedimb", *json.loads(sys.argv[1])]
code = 0
try:
    code = main()
except SystemExit as end:
    code = end.code
tops = sorted({name.partition(".")[0] for name in sys.modules})
outputs = sorted(name for name in sys.modules if name.startswith("fedimb.cli.output."))
seldom = gc.get_threshold()[0] > usual[0]
frozen = gc.get_freeze_count()
print("\\n" + json.dumps({"code": code, "tops": tops, "outputs": outputs, "started": started, "seldom": seldom,
                          "frozen": frozen}))
"""


def started(words: list[str], cwd: Path) -> dict:
    """What a command had imported when it ended, and which processes it had started."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(words)], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.stdout.strip(), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0, done.stderr
    return found


def test_help_imports_nothing_heavy(tmp_path):
    assert not {*HEAVY} & {*started(["--help"], tmp_path)["tops"]}
    code = "import sys; from fedimb.cli.main import VERBS, _parser; [_parser(v) for v in VERBS]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "fedimb.cli.compare" in done.stdout.split()
    assert not {*HEAVY} & {*done.stdout.split()}


def test_a_plan_imports_no_tracking_no_plots_and_no_ray(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "name: plan\nseeds: 2\nbase: [rounds=2, engine=inline]\nrows:\n  focal: {words: [loss=focal]}\n"
    )
    found = started(["compare", "study.yaml", "--dry-run"], tmp_path)
    assert not {*OTHER_PROCESS} & {*found["tops"]}
    assert found["started"] == []


def test_a_tracked_run_sends_from_a_process_that_starts_before_torch_is_imported(tmp_path):
    words = [word for word in SMALL if not word.startswith("tracking=")]
    run = ["run", *words, "data=synthetic_table", "data.source.rows=900", "engine=inline", f"output_dir={tmp_path}"]
    assert started([*run, "tracking=none"], tmp_path)["started"] == []  # and draws the partition, once
    found = started([*run, "name=again"], tmp_path)
    assert not {*OTHER_PROCESS, "scipy"} & {*found["tops"]}
    assert found["started"] == ["before torch"]
    assert found["outputs"] == ["fedimb.cli.output.base", "fedimb.cli.output.results"]
    assert not found["seldom"]  # a run collects garbage as usual
    assert found["frozen"] > 100_000  # and does not look through what the imports made


def test_the_process_that_sends_imports_no_torch():
    code = "import sys, fedimb.tracking.sender_process; print('torch' in sys.modules, 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
