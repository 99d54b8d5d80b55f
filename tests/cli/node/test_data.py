"""``fedimb node data``: from registration to withdrawal, as a hospital's engineer types it."""

import json
from pathlib import Path

import pytest

from fedimb.cli.main import main
from fedimb.deploy.home import NODE_HOME, NodeHome
from fedimb.deploy.registered_data.datasets import find_data_set
from fedimb.deploy.registered_data.pins import pin_run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeHome:
    (tmp_path / "node").mkdir(mode=0o700)
    (tmp_path / "node" / "node.yaml").write_text("site: st-anna\n")
    (tmp_path / "Köpfe.csv").write_text("pid,age,dx\n1,50,ill\n2,60,well\n2,61,well\n3,62,well\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(NODE_HOME, str(tmp_path / "node"))
    return NodeHome.open()


ADD = ["node", "data", "add", "Köpfe.csv", "--name", "heads", "--patient-column", "pid", "target=dx"]


def said(capsys, words, code=0):
    assert main(words) == code
    out = capsys.readouterr()
    return out.err if code else out.out


def test_from_registration_to_withdrawal(home, capsys, tmp_path):
    text = said(capsys, [*ADD, "--tags", "ct, brain", "--tags", "adult"])
    version = find_data_set(home, ["ct", "brain", "adult"])
    assert f"registered: heads {version.version[:12]}" in text
    assert "4 rows of 3 patients: ill 1, well 2" in text
    root = version.facts["merkle_root"]
    assert root in text
    assert "unchanged" in said(capsys, [*ADD, "--tags", "ct"])
    assert "4 records as registered" in said(capsys, ["node", "data", "verify"])
    assert "heads" in said(capsys, ["node", "data", "list"])

    said(capsys, ["node", "data", "prove", "heads", "3", "--open", "--to", "proof.json"])
    text = said(capsys, ["node", "data", "verify-proof", "proof.json", "--root", root])
    assert "record 2 of 4" in text
    assert "patient 2" in text
    assert "Not checked: whether" in said(capsys, ["node", "data", "verify-proof", "proof.json"])
    assert "for another version" in said(capsys, ["node", "data", "verify-proof", "proof.json", "--root", "ab"], 2)
    closed = json.loads(said(capsys, ["node", "data", "prove", "heads", "Köpfe.csv row 3"]))
    assert "opened" not in closed

    pin_run(home, "abc123", version)
    home.folder("state", "abc123")
    (tmp_path / "ids.txt").write_text("2\n\n")
    text = said(capsys, ["node", "data", "withdraw", "heads", "--ids", "ids.txt", "--then", "retrain"])
    for words in ("2 records left out", "abc123", "from round 0", "state/abc123/", "Not undone", "may still hold"):
        assert words in text
    assert "unlearn" not in text
    text = said(capsys, ["node", "data", "list"])
    assert "retrain" in text
    assert "2 rows of 2 patients" in text


def test_a_changed_file_is_exit_code_2(home, capsys, tmp_path):
    said(capsys, [*ADD, "--tags", "ct"])
    path = tmp_path / "Köpfe.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("61", "16"), encoding="utf-8")
    assert main(["node", "data", "verify", "heads"]) == 2
    assert "Köpfe.csv row 4 changed" in capsys.readouterr().out
    assert "row 4 changed" in said(capsys, ["node", "data", "prove", "heads", "2"], 2)
    assert "new version" in said(capsys, [*ADD, "--tags", "ct"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add", "none.csv", "--name", "x", "--tags", "y", "target=dx"], "no 'none.csv'"),
        (["add", "Köpfe.csv", "--name", "x", "--tags", "y"], "is a table: give target=COLUMN"),
        (["add", "Köpfe.csv", "--name", "a/b", "--tags", "y", "target=dx"], "data set name 'a/b'"),
        (["add", "Köpfe.csv", "--name", "x", "--tags", "y", "target=dx", "--classes", "ill,well,dead"], "--can-record"),
        (["verify", "heads"], "no data set 'heads' is registered"),
        (["verify-proof", "Köpfe.csv"], "cannot be read as a proof"),
        (["withdraw", "heads", "--ids", "none.txt"], "--ids none.txt cannot be read"),
    ],
)
def test_mistakes_are_one_line_with_a_remedy(home, capsys, words, says):
    text = said(capsys, ["node", "data", *words], 2)
    assert says in text
    assert text.count("\n") == 1


def test_nothing_yet(home, capsys):
    assert "nothing is registered" in said(capsys, ["node", "data", "list"])
