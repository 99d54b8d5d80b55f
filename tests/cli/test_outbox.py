"""``fedimb outbox``: what waits, and a person's word on it."""

import numpy as np
import pytest

from fedimb.cli.main import main
from fedimb.generation.outbox import Outbox, recalled_batches
from fedimb.privacy.audit.types import Audit, Batch, Verdict

AUDIT = Audit(
    {
        0: Verdict("pass", (), {"power": 0.95}),
        1: Verdict("undecidable", ("no holdout record of this class",), {"power": float("nan")}),
        2: Verdict("pass", (), {"power": 1.0}),
    }
)


@pytest.fixture
def waiting(home):
    """Puts a batch below ``sites/`` and returns (outbox, batch id)."""

    def put(client="client-000", seed=0):
        x = np.random.default_rng(seed).random((9, 2)).astype(np.float32)
        box = Outbox(home / "sites" / client / "outbox")
        batch = Batch(x, np.arange(9) % 3)
        return box, box.put(batch, AUDIT, {"class_names": ["naevus", "melanoma", "7"]}, Batch(x + 1, batch.y))

    return put


def test_list_shows_every_site(waiting, home, capsys, monkeypatch):
    box, id = waiting()
    waiting("client-001", seed=1)
    box.release(id, [0])
    assert main(["outbox", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert next(line.split() for line in lines if line.startswith(id))[2:] == ["6", "1", "1", "0", "0", "-"]
    main(["outbox", "list", "sites/client-001"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    main(["outbox", "list", "sites/client-001/outbox"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setenv("FEDIMB_SITE_DIR", str(home / "sites" / "client-000"))
    main(["outbox", "list"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    (home / "empty").mkdir()
    main(["outbox", "list", "empty"])
    assert "no batches in outboxes" in capsys.readouterr().out
    assert main(["outbox", "list", "nowhere"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_show_tells_verdicts_of_all_classes_and_where_to_look(waiting, capsys):
    box, id = waiting()
    box.reject(id, [0], "blurred")
    assert main(["outbox", "show", id[:6]]) == 0
    out = capsys.readouterr().out
    assert "class 0 (naevus): gate pass, rejected\n  rejected: blurred\n  power 0.95" in out
    assert "class 1 (melanoma): gate undecidable\n  no holdout record of this class\n  power n/a" in out
    assert f"look at {box.sheet(id, 2)}" in out
    assert str(box.sheet(id, 0)) not in out


def test_release_by_name_or_id_and_the_rest(waiting, capsys):
    box, id = waiting()
    assert main(["outbox", "release", id, "--classes", "naevus"]) == 0
    assert capsys.readouterr().out == f"batch {id}: released 0 (naevus)\n"
    # a class that is called 7 is meant by its name, and 2 is its id
    assert main(["outbox", "reject", id, "--classes", "7", "--reason", "looks like a patient"]) == 0
    assert box.state(id) == {0: "released", 2: "rejected"}
    assert main(["outbox", "release", id, "--all"]) == 2
    assert "no class of batch" in capsys.readouterr().err
    assert main(["outbox", "release", id, "--classes", "naevas"]) == 2
    assert "Did you mean 'naevus'?" in capsys.readouterr().err
    assert main(["outbox", "release", id, "--classes", "1"]) == 2
    assert "has no class 1" in capsys.readouterr().err


def test_all_releases_what_waits(waiting):
    box, id = waiting()
    box.reject(id, [0], "no")
    assert main(["outbox", "release", id, "--all", "--folder", "sites/client-000"]) == 0
    assert box.state(id) == {0: "rejected", 2: "released"}


def test_recall_names_the_runs_and_marks_those_within_reach(waiting, home, capsys):
    box, id = waiting()
    (home / "run").mkdir()
    box.release(id, [0])
    box.used_by(id, home / "run")
    box.used_by(id, "far-1")
    assert main(["outbox", "recall", id, "--reason", "consent withdrawn"]) == 0
    out = capsys.readouterr().out
    assert "recalled; 2 runs used it" in out
    assert f"{home / 'run'}: marked" in out
    assert "far-1: not within reach" in out
    assert id in recalled_batches(home / "run")
    main(["outbox", "list"])
    assert "consent withdrawn" in capsys.readouterr().out
    main(["outbox", "show", id])
    out = capsys.readouterr().out
    assert "recalled: consent withdrawn" in out
    assert "used by" in out


def test_a_word_that_means_no_batch_or_several(waiting, capsys):
    _, id = waiting()
    waiting("client-001")  # the same samples at another site
    assert main(["outbox", "show", id]) == 2
    assert "matches 2 batches" in capsys.readouterr().err
    assert main(["outbox", "show", id, "--folder", "sites/client-001"]) == 0
    assert main(["outbox", "show", "zzz"]) == 2
    assert "no batch 'zzz'" in capsys.readouterr().err
