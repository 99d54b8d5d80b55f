"""``fedimb doctor``: each check can say ok and what is wrong; none starts or imports anything heavy."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fedimb import process_env
from fedimb.cli import main
from fedimb.deploy import checks


def only(found):
    (check,) = found
    return check


def test_a_sound_installation_passes(home, capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warn") for line in lines)
    for name in (
        "python",
        "fedimb",
        "documentation",
        "packages",
        "torchvision",
        "threads",
        "switches",
        "/tmp",
        "mlflow store",
    ):
        assert any(line[6:].startswith(name) for line in lines), name


def test_it_is_quick_and_imports_nothing_heavy(home):
    code = (
        "import sys; from fedimb.cli import main; main(['doctor']);"
        "sys.exit(','.join(n for n in ('torch', 'ray', 'mlflow', 'matplotlib') if n in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_failure_is_the_exit_code(home, capsys, monkeypatch):
    monkeypatch.setattr(checks, "torchvision", lambda: checks.Check("fail", "torchvision", "broken", "remove it"))
    assert main(["doctor"]) == 1
    assert "fail  torchvision       broken: remove it\n" in capsys.readouterr().out


def requiring(monkeypatch, *lines, versions=None):
    monkeypatch.setattr(checks, "distribution", lambda name: SimpleNamespace(requires=list(lines)))
    monkeypatch.setattr(checks, "_version", (versions or {}).get)


def test_packages_missing_and_too_old(monkeypatch):
    requiring(
        monkeypatch,
        "torch>=2.6",
        "numpy>=1.26,<3",
        "gone>=1",
        'ray==2.55.1; extra == "sim"',
        'mlflow>=3.13; extra == "sim"',
        'pytest>=8; extra == "dev"',
        versions={"torch": "2.5.0", "numpy": "2.1.0", "mlflow": "3.17.2"},
    )
    found = {check.name: check for check in checks.packages()}
    assert (found["torch"].level, found["torch"].remedy) == ("fail", "pip install 'torch>=2.6'")
    assert (found["gone"].level, found["gone"].found) == ("fail", "not installed")
    assert (found["ray"].level, found["ray"].remedy) == ("warn", "pip install 'fedimb[sim]'")
    assert "pytest" not in found
    assert found["packages"].found.startswith("3 of")


def test_versions_beside_the_tested_ones_are_named(monkeypatch):
    pins = checks._pins()
    assert pins["flwr"].startswith("1.41")
    assert pins["scikit-learn"]
    requiring(monkeypatch, "flwr>=1.41", "torch>=2.6", versions={"flwr": "1.41.9", "torch": pins["torch"] + "+cpu"})
    found = {check.name: check for check in checks.packages()}
    assert found["versions"].found == f"flwr 1.41.9 (tested: {pins['flwr']})"


@pytest.mark.parametrize(("body", "level"), [("", "ok"), ("raise RuntimeError('operator does not exist')", "fail")])
def test_torchvision_is_imported_apart_when_it_is_there(tmp_path, monkeypatch, body, level):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = checks.torchvision()
    assert check.level == level
    assert "torchvision" not in sys.modules
    if body:
        assert "operator does not exist" in check.found
        assert check.remedy == "pip uninstall torchvision"


def test_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert checks.threads().level == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "10000")
    assert checks.threads().level == "warn"
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert checks.threads().level == "warn"


def test_switches_set_otherwise_are_named(monkeypatch):
    for name, value in process_env.QUIET.items():
        monkeypatch.setenv(name, value)
    assert checks.environment_variables().level == "ok"
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("RAY_ADDRESS")
    check = checks.environment_variables()
    assert check.level == "warn"
    assert "MLFLOW_DISABLE_TELEMETRY=false" in check.found
    assert "RAY_ADDRESS" in check.found


def test_little_room_is_a_warning(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10_000_000))
    assert {check.level for check in checks.space()} == {"warn"}
    assert all(check.remedy for check in checks.space())


def test_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "not" / "yet"))
    monkeypatch.delenv("FEDIMB_DATA_DIR", raising=False)
    cache, data = checks.folders()
    assert (cache.level, data.level) == ("ok", "ok")
    assert not (tmp_path / "not").exists()  # looking makes nothing
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("FEDIMB_DATA_DIR", str(tmp_path / "gone"))
    cache, data = checks.folders()
    assert (cache.level, data.level) == ("fail", "fail")
    assert "set FEDIMB_CACHE_DIR" in cache.remedy
    monkeypatch.setenv("FEDIMB_DATA_DIR", str(tmp_path))
    assert list(checks.folders())[1].level == "ok"


def test_the_store_is_read_and_a_damaged_one_found(template, home):
    assert "none yet" in checks.store("runs").found
    (home / "runs").mkdir()
    shutil.copyfile(template, home / "runs" / "mlflow.db")
    check = checks.store("runs")
    assert check.level == "ok"
    assert check.found.endswith("0 MLflow runs")
    (home / "runs" / "mlflow.db").write_bytes(b"not a database" * 100)
    check = checks.store("runs")
    assert check.level == "fail"
    assert "track sync" in check.remedy


def test_missing_links_of_a_checkout_are_a_failure(monkeypatch):
    assert checks.parts().level == "ok"
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    check = checks.parts()
    assert check.level == "fail"
    assert "lacks strategies, clients, configs" in check.found
    assert "no" in checks.torchvision().found or checks.torchvision().level == "ok"
    assert only([c for c in checks.optional() if "absent" in c.found]).level == "ok"
