"""The demo of four hospitals: a coordinator, TLS, approval, a run; the same weights as simulated, and in time."""

import os
import re
from pathlib import Path

import pytest
from behind_nginx import NGINX
from deployed import assert_same

from fedimb.deploy.demo import SITES, STUDY, Demo, check_data
from fedimb.deploy.home import NodeHome
from fedimb.errors import ConfigError
from fedimb.rundir.result import RunResult

DATA = os.environ.get("FEDIMB_DATA_DIR")
PACE_S = 120.0


def test_without_the_data_the_file_and_the_remedy_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"processed\.cleveland\.data does not exist: put the UCI heart-disease data"):
        check_data(str(tmp_path))
    (tmp_path / "heart-disease").mkdir()
    for name in SITES.values():
        (tmp_path / "heart-disease" / name).touch()
    assert check_data(str(tmp_path)) == tmp_path


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1200)
@pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)")
@pytest.mark.skipif(DATA is None, reason="FEDIMB_DATA_DIR names no folder with heart-disease")
def test_four_hospitals(tmp_path, monkeypatch, capfd):
    """Parity to 1e-5; at most 8 messages a node; three rounds under two minutes where two cores are free for it."""
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.deploy.audit_log import AuditLog
    from fedimb.serverapp.launch import launch
    from fedimb.serverapp.progress import ProgressBar

    load = os.getloadavg()[0]
    demo = Demo(tmp_path / "vier Häuser", check_data(DATA))
    folder = demo.run()
    config = validate(compose([*STUDY, f"output_dir={tmp_path}/simulated", "tracking=none"]))
    assert_same(RunResult.read(folder), launch(config, None, ProgressBar(3, enabled=False)))
    for site in SITES:
        lines = AuditLog(NodeHome.open(demo.home(site)).file("audit.jsonl")).lines()
        sent = [one for one in lines if one["kind"] == "message" and one["facts"]["run"] == folder.name]
        assert 4 <= len(sent) <= 8
    shown = capfd.readouterr().out
    assert re.search(r"\$ fedimb deploy run [0-9a-f]{64} --deployment coordinator\n", shown)
    assert "waiting: cleveland (plan " in shown
    if load < 1.5:
        assert demo.times["run"] < PACE_S
    assert not [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and _of(pid, tmp_path)]


def _of(process: Path, root: Path) -> bool:
    try:
        return str(root).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False
