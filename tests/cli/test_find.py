"""Words that mean a run folder."""

import json

import pytest

from fedimb.cli.find import find_run, run_folders
from fedimb.cli.places import OUTPUT_DIR
from fedimb.errors import ConfigError, FedimbError

NAMES = {
    "first": ("fedavg-s0-103b96c9", "fedavg-s1-99aa00bb", "fedavg-s0-103b96c9-2"),
    "second": ("tau-s0-deadbeef", "fedavg-s1-99aa00bb"),
}


@pytest.fixture
def root(tmp_path):
    for study, names in NAMES.items():
        for name in names:
            folder = tmp_path / "runs" / study / name
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("{}")
            rows = [{"label": "x", "tags": {"fedimb.run_id": f"id{study}{name}"}}]
            (folder / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "runs" / "second" / "tau-s0-deadbeef" / "tracking.json").write_text('{"runs": {"tau": "feed0123456"}}')
    (tmp_path / "runs" / "first" / "not-a-run").mkdir()
    (tmp_path / "runs" / "first" / ".deleting-x.1").mkdir()
    (tmp_path / "runs" / "first" / ".deleting-x.1" / "config.json").write_text("{}")
    return tmp_path / "runs"


def test_run_folders_are_those_with_a_configuration(root):
    assert [f"{f.parent.name}/{f.name}" for f in run_folders(root)] == sorted(
        f"{study}/{name}" for study, names in NAMES.items() for name in names
    )
    assert len(run_folders(root, "second")) == 2


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("fedavg-s0-103b96c9", "first/fedavg-s0-103b96c9"),  # exact, though another begins with it
        ("first/fedavg-s1-99aa00bb", "first/fedavg-s1-99aa00bb"),
        ("second/fed", "second/fedavg-s1-99aa00bb"),
        ("tau", "second/tau-s0-deadbeef"),
        ("dead", "second/tau-s0-deadbeef"),
        ("feed01", "second/tau-s0-deadbeef"),
        ("idsecondtau", "second/tau-s0-deadbeef"),
    ],
)
def test_a_word_finds_its_run(root, word, name):
    assert find_run(word, root) == root / name


def test_a_path_is_taken_as_it_is(root, tmp_path):
    assert find_run(str(root / "second" / "tau-s0-deadbeef"), tmp_path / "elsewhere").name == "tau-s0-deadbeef"


def test_several_fitting_runs_are_named(root):
    with pytest.raises(ConfigError, match=r"matches 2 runs: first/fedavg-s1-99aa00bb, second/fedavg-s1-99aa00bb"):
        find_run("fedavg-s1", root)
    with pytest.raises(ConfigError, match="matches 2 runs"):
        find_run("103b96c9", root)


@pytest.mark.parametrize("word", ["fedavg-s9", "", "103", "feed"])
def test_no_run_is_an_error(root, word):
    with pytest.raises(FedimbError, match="is not a run folder"):
        find_run(word, root)


def test_the_nearest_name_is_offered(root):
    with pytest.raises(FedimbError, match=r"Did you mean 'tau-s0-deadbeef'\?"):
        find_run("tua-s0-deadbeef", root)


def test_at_most_five_names_are_shown_and_how_to_list_all(root):
    for number in range(40):
        folder = root / "many" / f"scope-s{number}-0a0a0a{number:02}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    with pytest.raises(FedimbError) as caught:
        find_run("scoped-s1-0a0a0a01", root)
    message = str(caught.value)
    assert message.count("scope-s") == 5
    assert message.endswith(f" `fedimb runs list --output-dir {root}` lists all runs.")
    with pytest.raises(FedimbError, match=r"that name\. `fedimb runs list"):
        find_run("zzzzzzzzzzzzzzzzzz", root)
    with pytest.raises(FedimbError, match="There are no runs yet"):
        find_run("any", root / "empty")


def test_runs_are_looked_for_where_runs_go_by_default():
    from fedimb.config.compose import compose

    assert compose([])["output_dir"] == OUTPUT_DIR
