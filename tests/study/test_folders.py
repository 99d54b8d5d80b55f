"""Run folders nobody named a study for, and those of a study that was moved."""

import json
import math
import shutil

import pytest
from seals import flip, unseal
from small_runs import config, launch_in

from fedimb.config.load import flatten, row_label
from fedimb.errors import ConfigError, FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.serverapp.recorded import mark_differing
from fedimb.study.collect import read_cells, read_run
from fedimb.study.compare import RECORD, compare, margin_of, read_compared
from fedimb.study.design import Costs, study_of
from fedimb.study.execute import Workers
from fedimb.study.folders import UNREADABLE, collect, disambiguate, of_runs
from fedimb.study.work import Task, earlier

TINY = ("engine=inline", "rounds=2", "clients.count=3")


@pytest.fixture(scope="module")
def made(cache_dir, tmp_path_factory):
    """Make run folders below one place, each once."""
    where, kept = tmp_path_factory.mktemp("folders"), {}

    def make(*words):
        if words not in kept:
            kept[words] = launch_in(where, *TINY, *words).folder
        return kept[words]

    return make


def shape(results):
    return {(r.setting, r.label, r.seed) for r in results.results}


def test_scores_are_those_of_the_runs_own_result(made):
    path = made("calibration=[none,la_post]")
    rows = {row.label: row for row in RunResult.read(path).rows}
    plain = json.loads((path / "result.json").read_text())
    found = {result.label: result for result in read_run(path, "x", Costs())}
    assert list(found) == ["fedavg", "la_post"] == list(rows)
    for label, result in found.items():
        assert result.status == "finished"
        assert {k: v for k, v in result.scores.items() if k in rows[label].metrics} == pytest.approx(
            rows[label].metrics, nan_ok=True
        )
        assert result.matrix.tolist() == rows[label].confusion.tolist()
        assert result.score("up_bytes") == plain["up_bytes"]
        assert [round_ for round_, _ in result.curve] == [1, 2]
        assert result.curve[-1][1]["macro_recall"] == pytest.approx(rows[label].final["macro_recall"])
    assert (found["fedavg"].prior, found["la_post"].prior) == ("none", "train/data/clear_sum")


def test_learning_rates_become_labels_and_partitions_settings(made):
    paths = [made(f"local.lr={lr}", f"partition.alpha={alpha}") for lr in (0.1, 0.2) for alpha in (0.5, 0.1)]
    found = of_runs(paths, "s")
    assert shape(found) == {(f"alpha={alpha}", f"fedavg local.lr={lr}", 0) for lr in (0.1, 0.2) for alpha in (0.5, 0.1)}
    assert set(found.settings) == {"alpha=0.5", "alpha=0.1"}
    assert found.settings["alpha=0.5"].words == ("partition.alpha=0.5",)
    of = {(r.setting, r.label): r for r in found.results}
    for path in paths:
        result = RunResult.read(path)
        config = json.loads((path / "config.json").read_text())
        key = (f"alpha={config['partition']['alpha']}", f"fedavg local.lr={config['local']['lr']}")
        assert of[key].score("macro_recall") == result.rows[0].metrics["macro_recall"]


def test_a_model_is_a_setting_by_its_name(made):
    assert set(of_runs([made(), made("model=logistic")], "s").settings) == {"model=mlp", "model=logistic"}


def test_parts_are_in_the_label_and_their_arguments_only_where_they_differ(made):
    found = of_runs([made(), made("loss=focal"), made("aggregator=fedprox")], "s")
    assert found.labels == ("fedavg", "focal", "fedprox")
    assert found.control == "fedavg"
    found = of_runs([made(), made("loss=focal"), made("loss=focal", "loss.gamma=1")], "s")
    assert found.labels == ("fedavg", "focal loss.gamma=2.0", "focal loss.gamma=1.0")


@pytest.mark.parametrize("word", ["resampler=enn", "explanation=surrogate_tree"])
def test_what_the_label_has_already_or_what_changes_no_score_is_no_difference(word):
    """Else plain FedAvg would be named by it too, and no longer be the control."""
    found = disambiguate([flatten(config()), flatten(config(word))])
    assert [one.extra for one in found] == [(), ()]
    assert {one.setting for one in found} == {"default"}


MODELS = "clients.models={kinds: {wide: {name: mlp, hidden: [%d]}}, at: {2: wide}%s}"


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        ([(), ("clients.private=[head]",)], ["fedavg", "private_head"]),
        (
            [("clients.private=['*.bias']",), ("clients.private=['*.bias*']",)],
            ['private_.bias clients.private=["*.bias"]', 'private_.bias clients.private=["*.bias*"]'],
        ),
        ([(), (MODELS % (96, ""),)], ["fedavg", "1_more_networks"]),
        ([(MODELS % (96, ""),), (MODELS % (96, ", average: alike"),)], ["1_more_networks", "1_more_networks_alike"]),
        (
            [(), (MODELS % (96, ""),), (MODELS % (64, ""),)],
            [
                "fedavg",
                "1_more_networks clients.models.kinds.wide.hidden=[96]",
                "1_more_networks clients.models.kinds.wide.hidden=[64]",
            ],
        ),
        (
            [(), ("prior.weighting=effective",), ("prior.weighting=arrived",)],
            ["fedavg", "fedavg prior.weighting=effective", "arrived_prior"],
        ),
        (
            [
                ("clients.private=[head]",),
                ("clients.private=[head]", "prior.provenance=local"),
                ("prior.provenance=none",),
            ],
            ["private_head", "private_head prior.provenance=local", "fedavg prior.provenance=none"],
        ),
        (
            [("prior.provenance=none",), ("prior.provenance=local",)],
            ["fedavg prior.provenance=none", "fedavg prior.provenance=local"],
        ),
        (
            [("name=mine",), ("name=mine", "prior.weighting=arrived")],
            ["mine", "mine prior.weighting=arrived"],
        ),
        (
            [("pace=buffered",), ("pace=buffered", "pace.exponent=0"), ("pace=deadline",)],
            ["buffered pace.exponent=0.5", "buffered pace.exponent=0.0", "deadline"],
        ),
        (
            [("resampler=imovno",), ("resampler=imovno", "resampler.k=5")],
            ["imovno resampler.k=10", "imovno resampler.k=5"],
        ),
    ],
)
def test_methods_are_rows_of_one_setting(words, labels):
    """Of settings whose names begin like those of the problem, and of paces and resamplers: none is a problem."""
    configs = [config(*own) for own in words]
    found = disambiguate([flatten(one) for one in configs])
    assert {one.setting for one in found} == {"default"}
    assert [one.label(row_label(own, "none"), "none") for one, own in zip(found, configs, strict=True)] == labels


def test_several_sources_of_counts_are_settings_and_rows_without_one_are_said_to_stand_alone(caplog):
    words = ("prior.provenance=clear_sum", "prior.provenance=oracle", "prior.provenance=local")
    found = disambiguate([flatten(config(word)) for word in words])
    assert [one.setting for one in found] == ["provenance=clear_sum", "provenance=oracle", "default"]
    assert [one.extra for one in found] == [(), (), ("prior.provenance=local",)]
    assert "prior.provenance=local stand in a setting without those of clear_sum and oracle" in caplog.text
    caplog.clear()
    disambiguate([flatten(config(word)) for word in words[:2]])
    assert not caplog.text


SECURE, NOISY = ("prior.provenance=secure_sum",), ("prior.provenance=dp_sum", "prior.epsilon=2")
ONCE = ("strategy=oneround", "model=logistic")


@pytest.mark.parametrize("as_text", [False, True], ids=["folders", "mlflow"])
@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([(), ("loss=balanced_softmax", *SECURE)], ["default", "default"]),
        ([("loss=balanced_softmax", *NOISY), ("loss=balanced_softmax", "prior.provenance=local")], ["default"] * 2),
        ([ONCE, ("model=logistic", "rounds=20")], ["default", "default"]),
        ([(), ("loss=balanced_softmax",), ("loss=balanced_softmax", *SECURE)], [f"provenance={one}" for one in
         ("clear_sum", "clear_sum", "secure_sum")]),
        ([ONCE, ("model=logistic", "rounds=20"), ("model=logistic", "rounds=30")],
         ["default", "rounds=20", "rounds=30"]),
        ([("loss=balanced_softmax", *NOISY), ("loss=balanced_softmax", NOISY[0], "prior.epsilon=3")],
         ["epsilon=2.0", "epsilon=3.0"]),
        ([(), ("data.n_max=50",)], [None, "n_max=50"]),
    ],
)  # fmt: skip
def test_what_a_row_does_not_read_is_no_other_problem(words, settings, as_text):
    """Nobody can say the word that would make the two equal: it would be refused as changing nothing."""
    flat = [flatten(config(*own)) for own in words]
    if as_text:
        flat = [{key: str(value) for key, value in one.items()} for one in flat]
    found = [one.setting for one in disambiguate(flat)]
    assert [one if wanted else None for one, wanted in zip(found, settings, strict=True)] == settings


def test_the_times_of_clients_are_the_problem_whatever_the_pace():
    words = [
        ("pace.clock=true", "pace.slow=0.1"),
        ("pace=buffered", "pace.slow=0.3"),
        ("pace=deadline", "pace.slow=0.3"),
    ]
    found = disambiguate([flatten(config(*own)) for own in words])
    assert [one.setting for one in found] == ["slow=0.1", "slow=0.3", "slow=0.3"]
    found = disambiguate([flatten(config(*own)) for own in (*words, ())])
    assert found[-1].setting == "default"
    found = disambiguate([flatten(config(*own)) for own in (*words[1:], ())])
    assert {one.setting for one in found} == {"default"}  # without a clock no time counts


def test_arguments_of_a_calibration_tell_its_own_rows_apart_only(made):
    paths = [made("calibration=[none,tau]"), made("calibration=[none,tau]", "calibration.tau.tau=0.5")]
    found = of_runs(paths, "s")
    assert found.labels == ("fedavg", "tau calibration.tau.tau=1.0", "tau calibration.tau.tau=0.5")
    assert len(found.results) == 3  # the plain row is one and the same


def test_no_run_is_lost_without_a_word(made):
    words = [(), ("prior.weighting=effective",), ("evaluation.last_k=2",), ("partition.minority_placement=spread",)]
    found = of_runs([made(*own) for own in words], "s")
    assert len(found.results) == len(words)


def test_seeds_are_one_row_and_a_finished_run_comes_before_one_that_is_not(made, tmp_path):
    import shutil

    one, two = made(), made("seed=1")
    broken = tmp_path / "broken"
    shutil.copytree(one, broken)
    (unseal(broken) / "result.json").unlink()
    RunFolder(broken).set_status("failed", "no more disk")
    for paths in ([broken, one, two], [one, two, broken]):
        found = of_runs(paths, "s")
        assert {(r.seed, r.status) for r in found.results} == {(0, "finished"), (1, "finished")}
        assert found.settings["default"].counts.shape[0] == 3
    only = of_runs([broken, two], "s").of("default", "fedavg")
    assert [(r.status, r.error) for r in only] == [("failed", "no more disk"), ("finished", "")]
    assert math.isnan(only[0].score("macro_recall"))


def test_of_two_runs_of_one_configuration_by_other_code_the_later_is_shown_and_named(made, tmp_path, caplog):
    old, new = made(), tmp_path / "again"
    shutil.copytree(old, new)
    assert of_runs([old, new], "s").results[0].folder == old
    assert "one configuration" not in caplog.text
    identity = json.loads((new / "identity.json").read_text())
    identity["files"]["fedimb/seeds.py"] = "0" * 64
    RunFolder(new).write_json("identity.json", identity)
    RunFolder(new).set_status("finished")
    for paths in ([old, new], [new, old]):
        caplog.clear()
        assert [result.folder for result in of_runs(paths, "s").results] == [new]
        assert f"{old} and {new} are runs of one configuration, between which fedimb/seeds.py changed" in caplog.text


def test_a_run_that_is_refused_since_or_damaged_is_named_and_the_others_are_read(made, tmp_path, caplog):
    """`prior.weighting=effective` beside each client's own counts could be run once."""
    old, spoilt = (unseal(shutil.copytree(made(), tmp_path / name)) for name in ("old", "spoilt"))
    stored = json.loads((old / "config.json").read_text())
    stored["loss"] = {"name": "balanced_softmax"}
    stored["prior"] |= {"provenance": "local", "weighting": "effective"}
    (old / "config.json").write_text(json.dumps(stored))
    (spoilt / "config.json").write_text("{")
    sealed = shutil.copytree(made(), tmp_path / "sealed")
    flip(sealed / "config.json")
    found = of_runs([old, made("seed=1"), spoilt, sealed], "s")
    assert [(result.label, result.seed) for result in found.results] == [("fedavg", 1)]
    said = found.facts[UNREADABLE].split("; /")
    assert all(words in found.facts[UNREADABLE] for words in (f"{old} (", f"{spoilt} (", f"{sealed} (", "effective"))
    assert len(said) == 3 == sum(line.startswith("not shown: ") for line in caplog.messages)
    with pytest.raises(ConfigError, match="effective"):
        of_runs([old], "s")


def test_a_folder_without_runs_says_how_to_make_one(tmp_path):
    with pytest.raises(FedimbError, match="fedimb run study="):
        collect(tmp_path)


STUDY = {
    "name": "mine",
    "base": [*TINY, "data.n_max=60", "local.epochs=1", "tracking=none", "evaluation.bootstrap=0"],
    "rows": {"focal": ["loss=focal"]},
    "references": ["majority", "local_mean", "local_best", "fedavg", "la_post", "tau"],
    "seeds": 2,
    "margin": 0.05,
}


@pytest.fixture(scope="module")
def compared(cache_dir, tmp_path_factory):
    where = tmp_path_factory.mktemp("compared")
    study = study_of(STUDY, "s")
    return compare(study, [f"output_dir={where}"], Workers(0, False, where / "logs"), "fedimb compare s")


def scores(results):
    return {
        (r.setting, r.label, r.seed, r.status): {k: v for k, v in r.scores.items() if not math.isnan(v)}
        for r in results.results
    }


def test_a_comparison_holds_every_row_and_seed_and_forks_one_checkpoint(compared):
    results = compared.results
    assert compared.failures == []
    assert [len(results.of("default", label)) for label in results.labels] == [2] * 7
    assert {r.status for r in results.results} == {"finished"}
    assert results.control == "la_post"
    folders = {label: [r.folder for r in results.of("default", label)] for label in results.labels}
    assert folders["fedavg"] == folders["la_post"] == folders["tau"] != folders["focal"]
    matrices = {label: results.of("default", label)[0].matrix for label in ("fedavg", "la_post", "tau")}
    assert (matrices["fedavg"] != matrices["la_post"]).any()
    steps = {label: {r.score("steps") for r in results.of("default", label)} for label in ("fedavg", "focal")}
    assert steps["fedavg"] == steps["focal"]
    assert {r.score("steps") for r in results.of("default", "local_mean")} == steps["fedavg"]


def test_the_results_of_a_study_are_those_of_its_runs(compared):
    for result in compared.results.results:
        if result.folder is not None:
            row = next(r for r in RunResult.read(result.folder).rows if r.label == result.label)
            assert result.score("macro_recall") == row.metrics["macro_recall"]
    assert len((compared.folder / "rows.csv").read_text().splitlines()) == 1 + 14


@pytest.mark.parametrize("to", ["elsewhere/mine", "else where, it's/renamed.2"])
def test_a_study_that_was_moved_or_renamed_still_reads(compared, tmp_path, to):
    import shutil

    shutil.copytree(compared.folder, tmp_path / to)
    again = read_compared(tmp_path / to)
    assert scores(again) == scores(compared.results)
    assert all(tmp_path in r.folder.parents for r in again.results if r.folder is not None)
    assert (again.labels, again.control, again.name) == (compared.results.labels, compared.results.control, "mine")
    assert margin_of(tmp_path / to) == 0.05
    assert collect(tmp_path / to).labels == again.labels


def test_a_run_that_is_gone_is_a_failed_row_and_not_a_missing_one(compared, tmp_path):
    import shutil

    shutil.copytree(compared.folder, tmp_path / "mine")
    shutil.rmtree(next(path for path in (tmp_path / "mine").glob("focal-s1-*")))
    (unseal(next((tmp_path / "mine").glob("focal-s0-*"))) / "result.json").unlink()
    again = read_compared(tmp_path / "mine")
    assert [(r.seed, r.status, r.error) for r in again.of("default", "focal")] == [
        (0, "failed", "not finished"),
        (1, "failed", "not run"),
    ]
    assert len(again.results) == 14


def test_a_damaged_record_says_so(compared, tmp_path):
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(FedimbError, match=r"study\.json cannot be read .*compare again"):
        collect(tmp_path)


def test_cells_without_a_task_done_are_failed(compared):
    from fedimb.study.cells import plan

    cells, _ = plan(study_of(STUDY, "s"))
    found = read_cells(cells, {}, Costs())
    assert len(found) == len(cells)
    assert {(r.status, r.error) for r in found} == {("failed", "not run")}


def test_a_reference_row_may_predict_one_class_and_no_row_may_have_weights_that_stay(made, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(made(), path)
    folder = RunFolder(path)
    content = folder.read_json("result.json")
    content["rows"][0]["suspect"] = {"classes": "predicts one class", "weights": "did not move"}
    folder.write_json("result.json", content)
    (own,), (reference,) = (read_run(path, "x", Costs(), reference=it) for it in (False, True))
    assert (own.suspect, reference.suspect) == ("predicts one class; did not move", "did not move")
    assert RunResult.read(path).suspect == "predicts one class; did not move"


def test_a_run_that_repeats_arrivals_is_not_taken_for_the_run_of_its_configuration(made, tmp_path, caplog):
    plain, repeat = made(), tmp_path / "repeat"
    shutil.copytree(plain, repeat)
    unseal(repeat)
    (repeat / "recorded.jsonl").write_text("{}\n")
    found = of_runs([repeat, plain], "x")
    assert [result.folder for result in found.results] == [plain]
    assert f"not shown: {repeat}, which repeats recorded arrivals" in caplog.text
    assert [result.folder for result in of_runs([repeat], "x").results] == [repeat]
    again = config(*TINY).model_copy(update={"output_dir": str(tmp_path.parent), "study": tmp_path.name})
    task = Task.of("run", again, "x")
    assert earlier([task]) == ({}, {})
    (repeat / "recorded.jsonl").unlink()
    assert list(earlier([task])[0]) == [task.key]


def test_a_repeat_with_other_weights_is_suspect(made, tmp_path):
    folder = tmp_path / "repeat"
    shutil.copytree(made(), folder)
    mark_differing(folder, "the weights differ")
    assert RunResult.read(folder).suspect == "the weights differ"
    assert [result.suspect for result in of_runs([folder], "x").results] == ["the weights differ"]
