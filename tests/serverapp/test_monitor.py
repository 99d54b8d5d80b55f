"""Runs that learned nothing are called suspect; others are not."""

import json
import math

import numpy as np
import pytest
from small_runs import launch_in

from fedimb.config.load import config_sha, from_json
from fedimb.contracts.class_incremental import OF_PHASE
from fedimb.contracts.platform import PART, REPLACED
from fedimb.engine.lanes import ClientReply, LaneOutcome, LaneSum
from fedimb.errors import DataError, RunDiverged, RunSuspect
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import CLASSES, LOSS, WEIGHTS, suspect_text
from fedimb.serverapp import monitor as monitor_module
from fedimb.serverapp.checkpoint import FolderCheckpointer
from fedimb.serverapp.launch import resume
from fedimb.serverapp.monitor import ALARM, NOT_FINITE, RESET, UNMOVED, Monitor, not_finite, unmoved

ONE, TWO = {"test/recall/00_a": 1.0, "test/recall/01_b": 0.0}, {"test/recall/00_a": 0.9, "test/recall/01_b": 0.4}


def scored(recalls, **more):
    constant = 1.0 in recalls.values()
    return (
        {"test/macro_recall": 0.5, "test/mcc": None if constant else 0.3, "test/defined_classes": 2.0} | recalls | more
    )


def judged(rounds, last_k=3):
    """The suspicions of a row with these metrics, one dict per round."""
    base = {"data/participants": 4.0}
    lines = [{"row": "r", "step": at, "time": 0, "metrics": base | metrics} for at, metrics in enumerate(rounds, 1)]
    return Monitor(last_k, lines).suspicions("r")


@pytest.mark.parametrize("mark", [PART, REPLACED])
def test_a_model_of_one_class_is_found_in_a_last_part_that_is_shorter_than_a_summary(mark, caplog):
    rounds = [scored(TWO)] * 5 + [scored(ONE, **{mark: 1.0})]
    assert list(judged(rounds)) == [CLASSES]
    assert judged([*rounds[:-1], scored(ONE)]) == {}
    monitor = Monitor(3, [{"row": "r", "step": n, "time": 0, "metrics": line} for n, line in enumerate(rounds)])
    monitor.warn(6)
    assert not caplog.text  # the part may have just begun: only the end says it


def losses(*values):
    return judged([{"train/loss": value} for value in values])


def test_a_loss_up_tenfold_is_suspect_and_one_that_spikes_is_not():
    assert list(losses(2.0, 1.9, 2.1, 25.0, 30.0, 28.0)) == [LOSS]
    assert losses(2.0, 1.9, 500.0, 1.2, 1.1, 1.0) == {}
    assert losses(2.0, 1.9, 2.1, 18.0, 19.0, 18.5) == {}
    assert losses(2.0) == losses() == losses(None, None) == {}


def test_losses_of_two_parts_of_a_training_are_not_compared():
    def parts(*several, mark=PART):
        lines = [[{"train/loss": loss} for loss in values] for values in several]
        for n, own in enumerate(lines[1:], 1):
            own[0][mark] = float(n)
        return judged([line for own in lines for line in own])

    low, high, rising = [0.1, 0.11, 0.09, 0.1], [2.0, 2.1, 1.9, 2.0], [0.1, 0.1, 2.0, 2.1]
    assert list(losses(*low, *high)) == [LOSS]
    assert parts(low, high) == parts(low, high, mark=RESET) == {}  # other rows or labels; a model drawn anew
    assert list(parts(low, [0.2], rising)) == [LOSS]
    assert list(parts(rising, high)) == [LOSS]  # the weights that rose go on
    assert parts(rising, low) == parts(rising, high, mark=RESET) == {}
    assert list(parts(high, [2.0, 2.1, 25.0, 30.0])) == [LOSS]
    assert parts(high, [0.01]) == parts([0.01], high) == {}
    assert list(judged([{"train/loss": v} for v in rising] + [{REPLACED: 1.0, PART: 1.0}])) == [LOSS]


def test_a_rise_is_warned_of_once_a_part_has_a_few_rounds(caplog):
    base = {"data/participants": 4.0}
    metrics = [{"train/loss": 1.0}] * 6 + [{"train/loss": v, PART: 1.0} for v in (0.1, 0.1, 2.0, 2.0, 2.0, 2.0)]
    monitor, warned = Monitor(3), []
    for n, one in enumerate(metrics, 1):
        monitor.observe({"row": "r", "step": n, "time": 0, "metrics": base | one})
        monitor.warn(n)
        warned += [n] * bool(caplog.records)
        caplog.clear()
    assert warned == [11]


def test_values_that_are_not_finite_are_suspect_in_any_round():
    assert "in 1 of 3 rounds" in judged([{NOT_FINITE: 2.0}, {"train/loss": 1.0}, {"train/loss": 1.0}])[LOSS]
    replies = [
        ClientReply(0, metrics={"train_loss": 1.0}),
        ClientReply(1, metrics={"train_loss": math.inf}),
        ClientReply(2, metrics={"train_loss": math.nan}),  # no step, or kept private by noise
        ClientReply(3, usable=False, diverged=True),
        ClientReply(4, usable=False, error="gone"),
    ]
    assert not_finite(LaneOutcome(replies, LaneSum())) == 2


def test_weights_that_moved_in_no_round_are_suspect_and_those_that_came_to_rest_are_not():
    assert "no round of 2" in judged([{UNMOVED: 1.0}, {UNMOVED: 1.0}])[WEIGHTS]
    assert judged([{}, {UNMOVED: 1.0}, {UNMOVED: 1.0}]) == {}
    before = {"w": np.ones(100, np.float32), "b": np.zeros(3, np.float32)}
    assert unmoved(before, before)
    assert unmoved(before, before | {"w": before["w"] + np.float32(2e-7)})
    assert not unmoved(before, before | {"b": np.full(3, 1e-3, np.float32)})
    assert not unmoved(before, before | {"w": before["w"] * np.float32(1.0001)})


def test_one_class_counts_only_in_all_of_the_last_k_rounds():
    assert judged([scored(ONE)] * 3)[CLASSES].endswith("in each of the last 3 scored rounds (a)")
    assert list(judged([scored(TWO), *[scored(ONE)] * 3])) == [CLASSES]
    assert judged([*[scored(ONE)] * 5, scored(TWO)]) == {}
    assert judged([*[scored(ONE)] * 5, scored(TWO, **{"model/replaced": 1.0})]) == {}
    assert judged([scored(ONE), {}, scored(ONE)])[CLASSES]  # rounds without a score do not count


def test_one_true_class_says_nothing_about_predictions():
    assert judged([scored({"test/recall/00_a": 1.0}, **{"test/defined_classes": 1.0})] * 3) == {}


def test_the_same_labels_for_every_row_are_one_class():
    def labels(specificity, **recalls):
        keys = {f"test/recall/{at:02d}_{name}": value for at, (name, value) in enumerate(recalls.items())}
        return {"test/macro_recall": 0.5, "test/macro_specificity": specificity} | keys

    assert "(no label)" in judged([labels(1.0, a=0.0, b=0.0)] * 3)[CLASSES]
    assert "(a)" in judged([labels(0.5, a=1.0, b=0.0)] * 3)[CLASSES]
    assert judged([labels(1.0, a=1.0, b=0.0)] * 3) == {}  # a is found, and only where it is
    assert judged([labels(0.9, a=0.4, b=0.0)] * 3) == {}


def test_what_all_rows_share_is_said_once():
    assert suspect_text({"a": {LOSS: "up"}, "b": {LOSS: "up"}}) == "up"
    assert suspect_text({"a": {LOSS: "up"}, "b": {LOSS: "up", CLASSES: "one"}}) == "up; b: one"
    assert suspect_text({"a": {}, "b": {}}) == ""


def images(path, top, shuffled=False):
    """Three classes of pictures that anything learns, 80 % of them of the first: float32, 0 to ``top``."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [240, 30, 30])
    x = rng.random((300, 1, 6, 6)).astype(np.float32) * 0.5
    x[np.arange(300), 0, y * 2] += 0.5
    np.savez(path, x=x * top, y=rng.permutation(y) if shuffled else y)
    return [
        "data=npz",
        f"data.source.path={path}",
        "data.test={name: stratified, fraction: 0.3}",
        "engine=inline",
        "clients.count=3",
        "rounds=8",
        "evaluation.last_k=3",
    ]


LEARNS = ("model=mlp", "local.lr=0.1")


@pytest.mark.parametrize(
    ("top", "shuffled", "words", "kinds"),
    [
        (1.0, False, [], []),
        (1.0, True, ["local.lr=0.02"], [CLASSES]),
        (1.0, False, ["local.lr=1e6", "aggregator=fedmedian"], [LOSS]),
        (1.0, False, ["local.lr=1e-30"], [WEIGHTS]),
        (1.0, False, ["aggregator=fedavgm", "aggregator.server_learning_rate=1e-30"], [WEIGHTS]),
    ],
    ids=["learns", "labels_shuffled", "lr_1e6", "lr_0", "server_lr_0"],
)
def test_what_learned_nothing_is_suspect(top, shuffled, words, kinds, tmp_path):
    result = launch_in(tmp_path, *images(tmp_path / "rows.npz", top, shuffled), *LEARNS, *words)
    (row,) = result.rows
    assert set(kinds) <= set(row.suspect)
    assert bool(kinds) == bool(row.suspect) == bool(result.suspect)
    status = RunFolder(result.folder).read_json("status.json")
    assert (status["status"], status["reason"]) == ("finished", f"suspect: {result.suspect}" if kinds else "")
    assert ("suspect: " in result.summary()) == bool(kinds)


def test_weights_too_large_for_a_sum_are_a_run_that_diverged(tmp_path):
    with pytest.raises(RunDiverged, match=r"holds a value of size .*, above the bound 64 .*lower local.lr"):
        launch_in(tmp_path, *images(tmp_path / "rows.npz", 1.0), *LEARNS, "local.lr=1e6")


def test_pictures_of_0_to_255_are_refused_before_they_teach_nothing(tmp_path):
    with pytest.raises(DataError, match=r"float values from .* where a model expects 0 to 1: divide them by 255"):
        launch_in(tmp_path, *images(tmp_path / "rows.npz", 255.0), *LEARNS)


def test_a_calibrated_row_is_judged_by_its_own_scores(tmp_path):
    words = [*images(tmp_path / "rows.npz", 1.0), "calibration=[none,la_post]", "local.lr=1e-30", "model=mlp"]
    result = launch_in(tmp_path, *words)
    assert [WEIGHTS in row.suspect for row in result.rows] == [True, True]
    assert result.suspect.count("moved the weights") == 1


def test_a_run_scored_at_its_clients_alone_is_judged_by_its_final_scores(tmp_path):
    words = ["data.test={name: none}", "data.validation=0.3", "local.lr=1e6", "aggregator=fedmedian"]
    result = launch_in(tmp_path, *images(tmp_path / "rows.npz", 1.0), *LEARNS, *words)
    assert "in the last scored round (" in result.rows[0].suspect[CLASSES]


def test_fail_raises_after_everything_is_written_and_is_no_part_of_the_hash(tmp_path):
    words = [*images(tmp_path / "rows.npz", 1.0), *LEARNS, "local.lr=1e-30"]
    result = launch_in(tmp_path, *words, "run.on_suspect=fail")
    with pytest.raises(RunSuspect, match=r"^suspect: no round of 8 moved the weights.*everything is written") as raised:
        result.raise_if_refused()
    assert raised.value.exit_code == 3
    assert (result.folder / "artifacts" / "model" / "model.safetensors").exists()
    warned = launch_in(tmp_path, *words)
    warned.raise_if_refused()
    read = [from_json((one.folder / "config.json").read_text()) for one in (result, warned)]
    assert config_sha(read[0]) == config_sha(read[1])


def test_a_configuration_from_before_the_setting_keeps_its_hash(tmp_path):
    result = launch_in(tmp_path, *images(tmp_path / "rows.npz", 1.0), *LEARNS, "rounds=1")
    tree = json.loads((result.folder / "config.json").read_text())
    del tree["run"]
    before = from_json(json.dumps(tree))
    assert before.run.on_suspect == "warn"
    assert result.folder.name.endswith(config_sha(before)[:8])


@pytest.mark.parametrize(
    ("lr", "suspect"), [(1e-30, True), pytest.param(1e6, True, marks=pytest.mark.slow), (0.1, False)]
)
def test_a_killed_run_is_judged_like_an_uninterrupted_one(lr, suspect, tmp_path, monkeypatch):
    words = [*images(tmp_path / "rows.npz", 1.0), *LEARNS, f"local.lr={lr}", "checkpoint.every=2"]
    words += ["aggregator=fedmedian"] if lr > 1 else []  # a sum refuses weights of this size
    whole = launch_in(tmp_path / "whole", *words)
    save, saves = FolderCheckpointer.checkpoint, []

    def killed(self, loop):
        saves.append(loop)
        if len(saves) == 3:
            raise KeyboardInterrupt
        save(self, loop)

    monkeypatch.setattr(FolderCheckpointer, "checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        launch_in(tmp_path / "killed", *words)
    (folder,) = (path.parent for path in (tmp_path / "killed").glob("runs/*/*/config.json"))
    resumed = resume(folder, tracked=False)
    assert [row.suspect for row in resumed.rows] == [row.suspect for row in whole.rows]
    assert bool(whole.suspect) == suspect


def alarmed(recalls, prefix="test", **at):
    """The alarms of a row whose class b has these recalls; ``at``: more metrics of a round, as r12={...}."""
    lines = []
    for n, recall in enumerate(recalls, 1):
        metrics = {f"{prefix}/recall/00_a": 0.9, f"{prefix}/recall/01_b": recall, "data/participants": 4.0}
        lines.append({"row": "r", "step": n, "time": 0, "metrics": metrics | at.get(f"r{n}", {})})
    return Monitor(3, lines).alarms("r")


FALLS = [0.8, 0.82, 0.78, 0.81, 0.79, 0.8, 0.82, 0.78, 0.8, 0.81, *[0.3] * 6]


def test_a_class_whose_recall_falls_is_an_alarm_and_not_a_suspicion():
    assert list(alarmed(FALLS)) == list(alarmed(FALLS, "client")) == ["b"]
    assert alarmed(FALLS)["b"].startswith("recall 0.300 in round 11, 0.800 expected")
    assert alarmed(FALLS[:10]) == {}
    base = {"data/participants": 4.0}
    lines = [{"row": "r", "step": n, "time": 0, "metrics": base | {"test/recall/00_b": r}} for n, r in enumerate(FALLS)]
    assert Monitor(3, lines).suspicions("r") == {}


def test_a_class_of_few_scored_rows_needs_a_deeper_fall():
    recalls = [0.95] * 10 + [0.925] * 30
    assert list(alarmed(recalls)) == ["b"]
    rows = {f"r{n}": {"client/tested/00_a": 900.0, "client/tested/01_b": 40.0} for n in range(1, 41)}
    assert alarmed(recalls, "client", **rows) == {}
    lines = [{"row": "r", "step": n, "time": 0, "metrics": {"test/recall/01_b": r}} for n, r in enumerate(recalls)]
    assert Monitor(3, lines, (900, 40)).alarms("r") == {}
    assert list(Monitor(3, lines, (900, 4000)).alarms("r")) == ["b"]


def test_a_model_that_is_drawn_anew_or_replaced_starts_again():
    assert alarmed(FALLS, r11={RESET: 1.0}) == alarmed(FALLS, r11={REPLACED: 1.0}) == {}
    assert alarmed(FALLS, r11={PART: 1.0}) == {}  # what follows a warm-up, new labels, more rows
    assert list(alarmed(FALLS, r2={PART: 1.0})) == ["b"]
    assert list(alarmed(FALLS, r1={OF_PHASE: 1.0}, r11={OF_PHASE: 2.0, PART: 1.0})) == ["b"]  # forgetting is told
    lines = [{"row": "r", "step": 1, "time": 0, "metrics": {RESET: 2.0}}]
    assert Monitor(3, lines).resets() == 2


def test_the_servers_own_rows_judge_where_there_are_any():
    mixed = [{"client/recall/01_b": 0.1 if n > 9 else 0.8} for n in range(1, 17)]
    assert alarmed([0.8] * 16, **{f"r{n}": one for n, one in enumerate(mixed, 1)}) == {}


def test_an_alarm_reaches_panel_report_metrics_and_mlflow(tmp_path, monkeypatch):
    from fedimb.report.html.admission import admissions
    from fedimb.report.panel import panels
    from fedimb.study.folders import collect
    from fedimb.tracking.folder import read_suspicions

    monkeypatch.setattr(monitor_module, "THRESHOLD", -1.0)  # rings in the first scored round
    result = launch_in(tmp_path, "engine=inline", "rounds=1")
    assert set(result.rows[0].alarms) == set(result.class_names)
    assert result.suspect == "" or "recall" not in result.suspect
    assert "alarm, a class's recall fell:" in panels(result)
    assert RunFolder(result.folder).metrics()[-1]["metrics"][ALARM] == len(result.class_names)
    assert "expected from the scored rounds" in read_suspicions(result.folder, "alarms")[result.rows[0].label]
    (shown,) = admissions(collect(result.folder.parent).results)
    assert "alarm, a class's recall fell:" in shown.text
