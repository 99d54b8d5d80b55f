"""The bar: chosen on validation rows, at equal minimum counts; refused in words where it cannot be."""

import csv

import numpy as np
import pytest
import torch
from small_runs import launch_in

from fedimb.config.load import from_json
from fedimb.errors import ConfigError
from fedimb.evaluation.confusion import confusion_of
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.model_file import load_model
from fedimb.rundir.stored import read_federation
from fedimb.study import bars
from fedimb.study.bars import WIDEST, bar_plan, check_bar, choose_bars, validation_scores, write_bar_scores
from fedimb.study.cells import plan
from fedimb.study.design import study_of
from fedimb.study.references import FREE
from fedimb.study.work import Done

TREE = {"name": "s", "base": ["data.n_max=60", "clients.count=3", "rounds=2", "tracking=none"], "seeds": 4}


@pytest.fixture
def scored(monkeypatch):
    """`choose_bars` with made-up validation scores: ``table`` is {row: [score by seed]}, or None for a failed run."""

    def choose(study, table):
        paths = {}

        def execute(tasks):
            paths.update({task.key: task for task in tasks})
            lost = {label for label, values in table.items() if values is None}
            return {
                task.key: Done(None, "failed") if lost & set(task.rows) else Done(task.key, "finished")
                for task in tasks
            }

        def read(path):
            task = paths[path]
            config = from_json(task.config)
            assert config.data["validation"] == 0.2
            return {
                name: {"test/macro_recall": table[label][config.seed]}
                for name, label in zip(config.calibration, task.rows, strict=True)
            }

        monkeypatch.setattr(bars, "validation_scores", read)
        return choose_bars(study, {}, (), execute)

    return choose


def test_the_best_mean_over_the_first_seeds_is_the_bar_and_among_equals_the_first(scored, tmp_path):
    study = study_of(TREE, "s")
    table = {label: [0.5, 0.5, 0.5, 9.0] for label in (*FREE, *(f"{row}@5" for row in FREE))}
    table |= {"lda": [0.5, 0.6, 0.7, 0.0], "ncm": [0.6, 0.6, 0.6, 0.0], "la_post@5": [0.4, 0.4, 0.4, 0.0]}
    found, scores = scored(study, table)
    assert [(bar.min_count, bar.label, bar.seeds) for bar in found] == [
        (1, "ncm", (0, 1, 2)),
        (5, "uniform+la_post@5", (0, 1, 2)),
    ]
    assert found[0].validation == pytest.approx({"la_post": 0.5, "uniform+la_post": 0.5, "ncm": 0.6, "lda": 0.6})
    assert len(scores) == 8 * 3
    lines = list(csv.DictReader(write_bar_scores(scores, found, tmp_path / "bar.csv").open()))
    assert {line["label"] for line in lines if line["bar"] == "1"} == {"ncm", "uniform+la_post@5"}


def test_a_row_that_lost_a_run_is_never_the_bar(scored):
    table = {label: [0.5] * 4 for label in (*FREE, *(f"{row}@5" for row in FREE))}
    found, _ = scored(study_of(TREE, "s"), table | {"lda": None, "la_post": None, "la_post@5": None})
    assert [bar.label for bar in found] == ["uniform+la_post", "uniform+la_post@5"]
    everything, _ = scored(study_of(TREE, "s"), dict.fromkeys(table))
    assert [bar.label for bar in everything] == [None, None]


def test_a_study_without_a_bar_runs_nothing(scored):
    assert scored(study_of(TREE | {"bar": False}, "s"), {}) == ((), [])


def test_its_runs_keep_the_studys_test_rows_and_seeds_in_a_folder_of_their_own():
    study = study_of(TREE, "s")
    _, tasks = bar_plan(study, None, ("rounds=3",))
    configs = [from_json(task.config) for task in tasks]
    assert {config.seed for config in configs} == {0, 1, 2}
    assert {config.study for config in configs} == {"s.bar"}
    assert {config.rounds for config in configs} == {3}
    assert {config.data["validation"] for config in configs} == {0.2}
    whole = [from_json(task.config) for task in plan(study, None, ("rounds=3",))[1]]
    assert len({str(config.data["test"]) for config in [*configs, *whole]}) == 1
    assert {config.data["validation"] for config in whole} == {0.0}
    assert len(tasks) == 3 * (2 + 4)  # two trainings and four sums a seed
    assert bar_plan(study_of(TREE | {"bar": False}, "s"), None, ()) == ([], [])


def test_a_study_that_is_scored_on_validation_rows_has_none_left():
    study = study_of(TREE | {"base": [*TREE["base"], "data.test={name: none}", "data.validation=0.3"]}, "s")
    with pytest.raises(ConfigError, match="leaves none to choose the bar on"):
        check_bar(study, ())
    check_bar(study.model_copy(update={"bar": False}), ())


def test_inputs_too_wide_for_a_covariance_are_refused_with_the_limit_and_the_remedy(monkeypatch):
    class Wide:
        input_shape = (3, 64, 64)

    monkeypatch.setattr(bars, "open_source", lambda source: Wide())
    with pytest.raises(
        ConfigError, match=r"12,288 inputs.*limit is 3,072.*model=encoded.*rows: \[la_post, "
    ) as refused:
        check_bar(study_of(TREE, "s"), ())
    assert "\n" not in str(refused.value)
    check_bar(study_of(TREE | {"bar": {"rows": ["la_post", "uniform+la_post", "ncm"]}}, "s"), ())
    encoded = [*TREE["base"], "model=encoded", "model.encoder.name=random_features"]
    check_bar(study_of(TREE | {"base": encoded}, "s"), ())


def test_the_limit_is_that_of_the_method():
    from fedimb.strategies.oneround import WIDEST as THEIRS

    assert WIDEST == THEIRS


def test_validation_rows_are_the_clients_own_and_no_test_rows(tmp_path):
    path = launch_in(
        tmp_path, "engine=inline", "strategy=oneround", "model=logistic", "strategy.oneround.secure=false",
        "strategy.oneround.min_count=1", "clients.count=3", "data.validation=0.3",
    ).folder  # fmt: skip
    federation, model = read_federation(RunFolder.open(path)), load_model(path)
    rows = np.sort(federation.validation.rows)
    assert not np.isin(rows, federation.test).any()
    assert not np.isin(rows, federation.train.rows).any()
    store = federation.store
    logits = model(torch.from_numpy(np.asarray(store.x[rows])))
    matrix = confusion_of(torch.from_numpy(np.asarray(store.y)[rows]), logits)
    support = matrix.sum(1)
    recall = np.diag(matrix)[support > 0] / support[support > 0]
    assert validation_scores(path)["none"]["test/macro_recall"] == pytest.approx(recall.mean())
