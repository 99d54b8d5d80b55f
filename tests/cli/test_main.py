"""The command line as a newcomer uses it: exit codes, one-line errors, what is printed."""

import json

import pytest
from small_runs import SMALL

from fedimb import registry
from fedimb.cli import main

TABLE = ("data=synthetic_table", "data.source.rows=1000")


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for verb in ("run", "demo", "list", "track", "show", "runs", "predict", "new", "ui", "doctor"):
        assert f"    {verb} " in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "lokal.epochs=3"], "no setting 'lokal.epochs'. Did you mean 'local.epochs'?"),
        (["run", "loss=focl"], "no loss 'focl'"),
        (["run", "rounds=many"], "rounds"),
        (["run", "loss=balanced_softmax", "calibration=la_post"], "double correction"),
        (["run", "calibration=la_post", "prior.provenance=local"], "runs at the server"),
        (["run", "loss=balanced_softmax", "prior.provenance=none"], "needs class counts"),
        (["run", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["run", "--resume", "nowhere", "rounds=3"], "--resume takes no settings"),
        (["show", "nowhere"], "nowhere is not a run folder"),
        (["list", "losss"], "no kind 'losss'. Did you mean 'losses'?"),
        (["demo", "--seeds", "0"], "--seeds must be at least 1"),
        (["demo", "loss=focl"], "no loss 'focl'"),
        (["run", "data.n_max=5000"], "n_max"),
        (["run", *TABLE, "local.augmentation=[noise,flip]"], "augmentation 'flip' changes images"),
        (["run", *TABLE, "model=cnn1d"], "model 'cnn1d' reads signals"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(words)
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert error.startswith("fedimb: ")
    assert line in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_run_show_and_resume_of_a_finished_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SMALL, "engine=inline"]) == 0
    out = capsys.readouterr().out
    assert "minority recall" in out
    assert "head to tail" in out
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert str(folder) in out
    assert main(["show", str(folder)]) == 0
    assert capsys.readouterr().out == out
    before = (folder / "result.json").read_bytes()
    assert main(["run", "--resume", str(folder)]) == 0
    assert (folder / "result.json").read_bytes() == before
    for picture in ("partition.png",):
        assert (folder / "artifacts" / picture).stat().st_size < 200_000
    assert json.loads((folder / "environment.json").read_text())["packages"]["flwr"].startswith("1.41")


def test_show_prints_the_whole_configuration(capsys):
    assert main(["run", "--show", "seed=7"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


def test_list_names_what_is_registered(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("balanced_softmax", "fedyogi", "la_post", "dirichlet", "synthetic_table", "proximal", "mlp", "plain"):
        assert f"  {name} " in text
    assert main(["list", "combinations"]) == 0
    assert "double correction" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    from fedimb.cli import run

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_command", interrupted)
    assert main(["run"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_ctrl_c_in_a_run_names_its_folder_in_one_line(capsys, monkeypatch, tmp_path):
    from fedimb.serverapp.loop import Loop

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "run", interrupted)
    words = ["engine=inline", "rounds=1", "tracking=none", f"output_dir={tmp_path}"]
    assert main(["run", *words]) == 130
    (folder,) = (tmp_path / "default").iterdir()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"fedimb: interrupted; continue with: fedimb run --resume {folder}"
    )


def test_every_verb_with_a_file_of_its_own_explains_itself(capsys):
    from fedimb.cli.main import VERBS

    for verb in VERBS:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: fedimb {verb} ")


def test_without_a_verb_the_first_steps_are_shown(capsys):
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") < 12
    assert "fedimb run " in shown
    assert "fedimb --help lists all" in shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["doktor"], "fedimb: no verb 'doktor'. Did you mean 'doctor'? See fedimb --help"),
        (["rnu", "rounds=3"], "fedimb: no verb 'rnu'. Did you mean 'run'? See fedimb --help"),
        (["rounds=3"], "fedimb: 'rounds=3' is a setting, and settings follow a verb: fedimb run rounds=3"),
        (["runs", "lst"], "fedimb runs: no action 'lst'. Did you mean 'list'? See fedimb runs --help"),
        (["node", "audt"], "fedimb node: no action 'audt'. Did you mean 'audit'? See fedimb node --help"),
        (["run", "--dryrn"], "fedimb run: unrecognized arguments: --dryrn. See fedimb run --help"),
        (
            ["node", "audit", "export", "--as", "cvs"],
            "fedimb node audit export: --as cvs: not a valid choice. Did you mean 'csv'? See fedimb node audit export "
            "--help",
        ),
    ],
)
def test_a_mistyped_word_is_answered_in_one_line(words, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("words", [["runs"], ["data"], ["node"], ["node", "data"], ["deploy"], ["outbox"]])
def test_without_an_action_the_actions_are_shown(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"usage: fedimb {' '.join(words)} " in (shown := capsys.readouterr().err)
    assert "are required" in shown.splitlines()[-1]
    assert len(shown.splitlines()) > 5


def test_a_mistake_in_a_plug_ins_code_is_shown_with_its_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Crooked:
        def __init__(self):
            int("three")

    with registry.isolated():
        registry.register("sampler", "crooked")(Crooked)
        groups = tmp_path / "groups"
        (groups / "sampler").mkdir(parents=True)
        (groups / "sampler" / "crooked.yaml").write_text("name: crooked\n")
        assert main(["run", *SMALL, "sampler=crooked", "--config-dir", str(groups)]) == 2
    *shown, last = capsys.readouterr().err.splitlines()
    assert last.startswith("fedimb: sampler 'crooked': invalid literal for int() with base 10: 'three'")
    assert any('int("three")' in line for line in shown)
    assert not (tmp_path / "runs").exists()
