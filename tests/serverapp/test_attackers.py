"""Attackers of a run: the same on every engine and after a kill, recorded, and nothing without an attack."""

import json

import pytest
from small_runs import config, launch_in, weights_sha

from fedimb.config.load import config_sha, from_json, row_label, to_json
from fedimb.data.prepare import prepare
from fedimb.deploy.study_plan.plan import site_config
from fedimb.engine.ray import RayEngine
from fedimb.errors import ConfigError, RunFailed
from fedimb.report.panel import panels
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp import exchange as exchange_module
from fedimb.serverapp.attackers import attackers_in
from fedimb.serverapp.launch import resume

DATA = ("data.n_max=40", "data.imbalance_factor=10", "data.validation=0.2")
TINY = ("engine=inline", "model=logistic", "clients.count=6", "rounds=2", *DATA)
GROUP = ("attack=min_max", "attack.fraction=.4")


def attackers(*words):
    cfg = config(*TINY, *words)
    return attackers_in(cfg, prepare(cfg.data, cfg.partition, cfg.clients.count, cfg.seed))


def test_without_an_attack_nothing_is_built_hashed_or_labelled():
    plain = config(*TINY)
    tree = json.loads(to_json(plain))
    assert tree.pop("attack") == {"name": "none"}
    assert config_sha(from_json(json.dumps(tree))) == config_sha(plain)  # a configuration of before this setting
    assert attackers() is None
    flipped = config(*TINY, "attack=label_flip", "attack.fraction=.25")
    assert config_sha(flipped) != config_sha(plain)
    assert row_label(flipped, "none") == "label_flip_0.25"


def test_who_attacks_is_recorded_and_their_scores_are_not_used(tmp_path):
    result = launch_in(tmp_path, *TINY, *GROUP, "calibration=none")
    facts = {"name": "min_max", "clients": list(attackers(*GROUP).clients), "start": 1}
    assert len(facts["clients"]) == 2
    assert result.attack == facts
    folder = RunFolder(result.folder)
    assert json.loads((result.folder / "artifacts" / "attackers.json").read_text()) == facts
    assert any('"event": "attackers"' in line for line in (result.folder / "journal.jsonl").read_text().splitlines())
    clients = ", ".join(map(str, facts["clients"]))
    assert f"simulated attack: min_max by clients {clients}, from round 1" in panels(result)
    honest = launch_in(tmp_path, *TINY)
    first = [RunFolder(one.folder).metrics()[0]["metrics"] for one in (result, honest)]
    assert first[0]["data/replies"] == first[1]["data/replies"]
    assert folder.metrics()[0]["metrics"]["client/macro_recall"] != first[1]["client/macro_recall"]
    assert honest.attack is None


def test_a_group_changes_only_what_it_sends_from_its_first_round_on(tmp_path):
    late = launch_in(tmp_path, *TINY, "attack=sign_flip", "attack.start=2")
    honest = launch_in(tmp_path, *TINY)
    assert weights_sha(late) != weights_sha(honest)
    rounds = [(run.folder / "metrics.jsonl").read_text().splitlines() for run in (late, honest)]
    one, other = ([json.loads(line) for line in lines] for lines in rounds)
    assert [a["metrics"]["test/macro_recall"] for a in one if a["step"] < 2] == [
        b["metrics"]["test/macro_recall"] for b in other if b["step"] < 2
    ]


def test_a_run_that_stops_and_is_resumed_gives_the_same_model(tmp_path, monkeypatch):
    whole = launch_in(tmp_path / "whole", *TINY, *GROUP)
    real = exchange_module.Exchange.send

    def stops(self, kind, *args, **options):
        if kind == "train" and self.versions.message == 3:  # the counts were the first message, if any were asked for
            raise RunFailed("stopped")
        return real(self, kind, *args, **options)

    monkeypatch.setattr(exchange_module.Exchange, "send", stops)
    with pytest.raises(RunFailed, match="stopped"):
        launch_in(tmp_path / "stopped", *TINY, *GROUP, "loss=balanced_softmax", "rounds=3")
    monkeypatch.undo()
    (folder,) = (tmp_path / "stopped").glob("runs/default/*/config.json")
    resumed = resume(folder.parent)
    straight = launch_in(tmp_path / "straight", *TINY, *GROUP, "loss=balanced_softmax", "rounds=3")
    assert weights_sha(resumed) == weights_sha(straight) != weights_sha(whole)
    assert resumed.attack == straight.attack


def test_false_counts_reach_the_prior_and_undeclared_rows_are_refused(tmp_path):
    words = (*TINY, "loss=balanced_softmax", "attack=count_inflation", "attack.factor=50")
    lying = launch_in(tmp_path, *words)
    true = launch_in(tmp_path, *TINY, "loss=balanced_softmax")
    common = int(true.prior_counts.argmax())
    assert lying.prior_counts.sum() > 5 * true.prior_counts.sum()
    assert int(lying.prior_counts.argmax()) == common
    assert {one["client"] for one in lying.left_out} == set(lying.attack["clients"])
    assert all("has counted none to train on" in one["reason"] for one in lying.left_out), "its own matrices say so"
    told = launch_in(tmp_path, *TINY, "attack=count_inflation", "attack.declared=false", "rounds=4")
    assert {one["client"] for one in told.left_out} == set(told.attack["clients"])
    assert "set aside" in told.left_out[-1]["reason"]


def test_an_attack_with_an_aim_says_how_often_it_is_reached(tmp_path):
    result = launch_in(tmp_path, *TINY, "attack=label_flip", "attack.source=8", "attack.target=1")
    matrix = result.confusion
    assert result.rows[0].final["attack_success"] == pytest.approx(matrix[8, 1] / matrix[8].sum())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("attack=label_flip", "attack.fraction=.95"), "at least one is honest"),
        (("attack=label_flip", "attack.source=77"), "source=77: give a class id from 0 to 9"),
        (("attack=patch_trigger", "attack.size=9"), "9 x 9 pixels does not fit"),
        (("attack=sign_flip", "evaluation.secure=true"), "cannot be left out of the masked sum"),
        (("attack=sign_flip", "attack.start=3"), "the run has 2 rounds, so nobody would attack"),
    ],
)
def test_what_cannot_work_is_refused_before_a_run_folder_exists(tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        launch_in(tmp_path, *TINY, *words)
    assert not (tmp_path / "runs").exists()


def test_a_plan_for_real_sites_that_names_an_attack_is_refused():
    with pytest.raises(ConfigError, match="attack=free_rider: attacks are for simulated clients"):
        site_config(to_json(config(*TINY, "attack=free_rider")))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["label_flip", "free_rider", "min_max", "count_inflation", "rare_mimic"])
def test_ray_gives_the_same_bits_as_inline(tmp_path, name):
    words = (*TINY[1:], f"attack={name}", "attack.fraction=.4", "aggregator=fedexp", "engine.trainer=loop")
    inline = launch_in(tmp_path, *words, "engine=inline")
    with RayEngine(workers=2) as engine:
        ray = launch_in(tmp_path, *words, "engine=ray", "engine.workers=2", engine=engine)
    assert weights_sha(inline) == weights_sha(ray)
    assert inline.rows[0].metrics == ray.rows[0].metrics
