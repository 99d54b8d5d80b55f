"""`fedimb node init` and `rotate` at a hospital: nothing is made for an authority that was not confirmed."""

from pathlib import Path

import pytest
from coordinator import contents, make_deployment, make_node

from fedimb.cli.main import main
from fedimb.deploy.pki import fingerprint, make_ca


def test_a_wrong_fingerprint_stops_before_a_key_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = make_deployment(tmp_path / "heart")
    words = ["node", "init", "st-anna", "--host", "localhost", "--port", "9443", "--to", str(tmp_path / "st-anna")]
    words += ["--ca", str(deployment.file("ca.crt")), "--fingerprint"]
    assert main([*words, fingerprint(make_ca("heart")[1])]) == 2
    said = capsys.readouterr().err
    assert "Do not go on" in said
    assert main([*words, "abc"]) == 2
    assert "64 hex digits" in capsys.readouterr().err
    assert not (tmp_path / "st-anna").exists()


@pytest.mark.parametrize("option", ["--host", "--port", "--ca", "--fingerprint"])
def test_nothing_is_assumed(tmp_path: Path, option: str) -> None:
    words = {"--host": "a", "--port": "9443", "--ca": "ca.crt", "--fingerprint": "f" * 64}
    given = [word for name, value in words.items() if name != option for word in (name, value)]
    with pytest.raises(SystemExit) as caught:
        main(["node", "init", "st-anna", *given, "--to", str(tmp_path / "x")])
    assert caught.value.code == 2


def test_a_rotation_changes_the_identity_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = make_deployment(tmp_path / "heart")
    make_node(deployment, tmp_path / "va")
    before = contents(tmp_path / "va")
    monkeypatch.setenv("FEDIMB_NODE_HOME", str(tmp_path / "va"))
    assert main(["node", "rotate", "--contact", "Frau Groß"]) == 0
    after = contents(tmp_path / "va")
    assert {name for name in before if after[name] != before[name]} == {"key", "key.pub", "va.join.json"}
    assert after.keys() == before.keys()
    assert "Frau Groß" in after["va.join.json"].decode()
    assert "deploy rotate" in capsys.readouterr().out
    (tmp_path / "va" / "va.join.json").unlink()  # it was sent and not kept
    assert main(["node", "rotate"]) == 0
    assert (tmp_path / "va" / "va.join.json").is_file()
