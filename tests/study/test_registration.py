"""What is registered of a study, and what makes it exploratory. No run is done."""

import json

import pytest

from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder
from fedimb.study.design import study_of
from fedimb.study.registration import differences, judge, register, registration_file, with_earlier_runs
from fedimb.study.results import Result

TREE = {
    "name": "s",
    "about": "as it was",
    "base": ["clients.count=3", "rounds=2", "tracking=none"],
    "references": ["fedavg", "la_post"],
    "rows": {"focal": ["loss=focal"]},
    "data_sets": {"few": ["data=digits", "data.n_max=60"], "more": ["data=digits", "data.n_max=80"]},
    "seeds": 2,
    "registration": {"contrasts": [["focal", "la_post"]], "margin_reason": "one row of a class of 60"},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.yaml"


def test_the_file_says_what_is_claimed_and_the_same_study_is_registered(path):
    study = study_of(TREE, "s")
    file, found = register(study, path)
    assert file == registration_file(path)
    written = json.loads(file.read_text())
    registered = written["registered"]
    assert registered["primary"] == "macro_recall"
    assert registered["contrasts"] == [["focal", "la_post"]]
    assert registered["margin_reason"] == "one row of a class of 60"
    assert registered["seeds"] == [0, 1]
    assert set(registered["data_sets"]) == {"few", "more"}
    assert set(registered["data"]) == {"few", "more"}
    assert len(registered["configurations"]) == 2 * 3
    judged = judge(study, path, ())
    assert (judged.word, judged.sha, judged.reasons) == ("registered", written["sha256"], ())
    assert judged.sentence == f"registered {written['time'][:10]} ({written['sha256'][:8]})"
    before = file.read_bytes()
    assert register(study, path) == (file, found)
    assert file.read_bytes() == before
    assert judge(study_of(TREE | {"about": "told otherwise", "takeaway": "so"}, "s"), path, ()).word == "registered"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": 3}, r"seeds \(\[0, 1\] -> \[0, 1, 2\]\)"),
        ({"rows": {"focal": ["loss=focal"], "ldam": ["loss=ldam"]}}, r"rows \(ldam added\)"),
        ({"rows": {"focal": ["loss=focal", "loss.gamma=3"]}}, r"rows \(focal changed\)"),
        ({"registration": TREE["registration"] | {"primary": "minority_recall"}}, "primary"),
        ({"registration": TREE["registration"] | {"contrasts": [["focal", "fedavg"]]}}, "contrasts"),
        ({"registration": TREE["registration"] | {"margin_reason": "another"}}, "margin_reason"),
        ({"data_sets": TREE["data_sets"] | {"third": ["data=digits"]}}, r"data_sets \(third added\)"),
        ({"margin": 0.05}, r"margins \(equivalence changed\)"),
        ({"control": "fedavg"}, "control"),
    ],
)
def test_a_changed_study_is_exploratory_and_the_change_is_named(path, change, said):
    register(study_of(TREE, "s"), path)
    changed = study_of(TREE | change, "s")
    judged = judge(changed, path, ())
    assert judged.word == "exploratory"
    with pytest.raises(ConfigError, match=said):
        register(changed, path)
    assert "changed since it was registered" in judged.sentence


def test_settings_on_the_command_line_an_edited_file_and_none_at_all(path):
    study = study_of(TREE, "s")
    assert judge(study, path, ()).sentence == (
        "exploratory: nothing was registered before the runs (fedimb study register)"
    )
    file, _ = register(study, path)
    assert "configurations (fedavg, few changed" in judge(study, path, ("rounds=3",)).sentence
    assert judge(study, path, ("tracking=mlflow",)).word == "registered"  # changes no number
    text = json.loads(file.read_text())
    text["registered"]["margins"]["equivalence"] = 0.5
    file.write_text(json.dumps(text))
    assert "was edited" in judge(study, path, ()).sentence
    file.write_text("{")
    assert "cannot be read" in judge(study, path, ()).sentence


def test_runs_that_had_ended_before_are_named(path, tmp_path):
    _, found = register(study_of(TREE, "s"), path)
    for name, time in (("early", 0.0), ("late", 4e9)):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).write_json("status.json", {"status": "finished", "time": time})
    results = [Result("few", "focal", seed, folder=tmp_path / name) for seed, name in enumerate(("early", "late"))]
    judged = with_earlier_runs(found, results)
    assert judged.sentence == "exploratory: 1 run had ended before it was registered"
    assert with_earlier_runs(found, results[1:]).word == "registered"


def test_a_study_without_contrasts_is_not_registered(path):
    with pytest.raises(ConfigError, match=r"add e\.g\. registration"):
        register(study_of({k: v for k, v in TREE.items() if k != "registration"}, "s"), path)


def test_many_differences_are_counted():
    before, now = {"rows": {}}, {"rows": dict.fromkeys("abcdef", 1)}
    assert differences(before, now) == ["rows (a added, b added, c added, d added, and 2 more)"]
    assert differences(now, now) == []
