"""`fedimb deploy` as an engineer types it: what it prints, what it changes, how it answers a mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from coordinator import contents, make_deployment, make_node

from fedimb.cli.main import main
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.sites import joined_sites
from fedimb.deploy.coordinator.superlink import healthy
from fedimb.deploy.pki import fingerprint, format_fingerprint, key_fingerprint


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / "Herz Süd")


def test_init_prints_the_fingerprint_and_commands_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["deploy", "init", "heart-study", "--host", "fl.example.org", "--to", "Klinik Süd"]
    assert main(words) == 0
    said = capsys.readouterr().out
    made = Deployment.open(tmp_path / "Klinik Süd")
    digest = format_fingerprint(fingerprint(made.file("ca.crt").read_bytes()))
    assert digest in said
    assert f"--deployment '{tmp_path / 'Klinik Süd'}'" in said  # can be pasted in spite of the space
    assert made.config.host == "fl.example.org"
    before = contents(made.root)
    assert main(words) == 2
    assert "exists" in capsys.readouterr().err
    assert contents(made.root) == before
    node = ["node", "init", "st-anna", "--host", "fl.example.org", "--port", str(made.config.port)]
    assert main([*node, "--ca", str(made.file("ca.crt")), "--fingerprint", digest.upper()]) == 0
    assert (tmp_path / "st-anna" / "st-anna.join.json").is_file()


def test_init_gives_both_fingerprints_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = str(tmp_path / "d")
    assert main(["deploy", "init", "heart-study", "--host", "fl.example.org", "--to", to, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    made = Deployment.open(to)
    assert told["fingerprint"] == format_fingerprint(fingerprint(made.file("ca.crt").read_bytes()))
    assert told["signing_key_fingerprint"] == key_fingerprint(made.signing_key().encode(), "sign.key")


def test_a_site_comes_rotates_and_goes(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    join = make_node(deployment, tmp_path / "va")
    at = ["--deployment", str(deployment.root)]
    file = str(tmp_path / "va" / "va.join.json")
    assert main(["deploy", "add-site", file, *at]) == 0
    said = capsys.readouterr().out
    assert join.key_fingerprint in said
    assert "Jürgen Müller" in said
    assert "next fedimb deploy up" in said
    assert main(["node", "rotate", "--home", str(tmp_path / "va")]) == 0
    told = re.search(r"SHA256:\S+", capsys.readouterr().out)
    assert main(["deploy", "rotate", "va", file, *at]) == 0
    assert told is not None
    assert told[0] in capsys.readouterr().out
    after = joined_sites(deployment)["va"]
    assert after.key_fingerprint == told[0] != join.key_fingerprint
    assert after.contact == join.contact  # kept, as nobody gave another
    assert main(["deploy", "rotate", "other", file, *at]) == 2
    assert "is of site 'va'" in capsys.readouterr().err
    assert main(["deploy", "remove-site", "va", *at]) == 0
    assert deployment.sites() == ()


def test_another_release_is_pointed_out(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_node(deployment, tmp_path / "va")
    file = tmp_path / "va" / "va.join.json"
    file.write_text(re.sub(r'"fedimb": "[^"]*"', '"fedimb": "0.0.1"', file.read_text("utf-8")), "utf-8")
    assert main(["deploy", "add-site", str(file), "--deployment", str(deployment.root)]) == 0
    assert "it has fedimb 0.0.1" in capsys.readouterr().out


def test_status_of_servers_that_are_down(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(deployment.root)  # the working folder is the default
    assert main(["deploy", "status"]) == 1
    said = capsys.readouterr().out
    assert "down (fedimb deploy up)" in said
    assert "no sites yet" in said
    make_node(deployment, tmp_path / "va")
    assert main(["deploy", "add-site", str(tmp_path / "va" / "va.join.json")]) == 0
    capsys.readouterr()
    assert main(["deploy", "status"]) == 1
    assert re.search(r"va +unknown while down +Dr\. Jürgen Müller", capsys.readouterr().out)


def test_status_warns_of_an_end_even_while_up(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedimb.deploy.coordinator import creation as founding
    from fedimb.deploy.coordinator import registration, superlink

    monkeypatch.setattr(superlink, "healthy", lambda _: True)
    monkeypatch.setattr(registration, "list_nodes", lambda _: {})
    at = ["deploy", "status", "--deployment", str(deployment.root)]
    assert main(at) == 0
    monkeypatch.setattr(founding, "expiry_warnings", lambda _: ["server.pem expires in 3 days"])
    assert main(at) == 1
    assert "warning: server.pem expires in 3 days" in capsys.readouterr().out


def test_a_folder_that_is_no_deployment_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status"], ["up"], ["renew"], ["remove-site", "va"], ["add-site", "x.json"]):
        assert main(["deploy", *words, "--deployment", str(tmp_path)]) == 2
        assert "not a deployment's folder" in capsys.readouterr().err


def test_renew_writes_a_new_certificate(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    before = deployment.file("server.pem").read_bytes()
    assert main(["deploy", "renew", "--deployment", str(deployment.root)]) == 0
    assert deployment.file("server.pem").read_bytes() != before
    assert "Restart" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_up_runs_both_until_told_to_stop(deployment: Deployment, how: signal.Signals) -> None:
    pytest.importorskip("fedimb.deploy.coordinator.servers")
    if not any(Path(folder, "nginx").is_file() for folder in [*os.environ["PATH"].split(":"), "/usr/sbin"]):
        pytest.skip("no nginx here (apt-get install nginx)")
    argv = [str(Path(sys.executable).parent / "fedimb"), "deploy", "up", "--deployment", str(deployment.root)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C stops both" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert healthy(deployment)
        assert main(["deploy", "status", "--deployment", str(deployment.root)]) == 0
        assert main(["deploy", "up", "--deployment", str(deployment.root)]) == 2  # a second one is refused
        assert healthy(deployment)
        process.send_signal(how)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while healthy(deployment) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not healthy(deployment)
    assert not deployment.file("state", "servers.json").exists()
