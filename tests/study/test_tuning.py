"""How configurations are chosen, on scores made up here: no run is done."""

import csv
import math

import numpy as np
import pytest

from fedimb.config.load import from_json
from fedimb.errors import ConfigError
from fedimb.study import tuning
from fedimb.study.cells import plan
from fedimb.study.design import TUNING_SEEDS_FROM, study_of
from fedimb.study.results import Result
from fedimb.study.tuning import Trial, curves_of, tune, write_trials
from fedimb.study.work import Done

BASE = ["data.n_max=60", "clients.count=5", "rounds=2", "tracking=none"]


class Pretended:
    """Stands for running tasks and reading them: ``score(config, seed)`` is a number, or None for a diverged run."""

    def __init__(self, monkeypatch, score):
        self.score, self.calls, self.configs = score, [], {}
        monkeypatch.setattr(tuning, "read_cells", self.read)

    def __call__(self, tasks):
        self.calls.append(list(tasks))
        self.configs |= {task.key: from_json(task.config) for task in tasks}
        return {task.key: Done(None) for task in tasks}

    def read(self, cells, done, costs):
        return [self.result(cell) for cell in cells]

    def result(self, cell):
        value = self.score(self.configs[cell.task], cell.seed - TUNING_SEEDS_FROM)
        status = "diverged" if value is None else "finished"
        scores = {} if value is None else dict.fromkeys(("macro_recall", "ece", "mcc"), value)
        return Result(cell.setting, cell.label, cell.seed, status, scores)

    def tried(self, key="lr"):
        return [sorted({getattr(from_json(t.config).local, key) for t in call}) for call in self.calls]


@pytest.fixture
def pretend(monkeypatch):
    return lambda score: Pretended(monkeypatch, score)


def study(grid, rows=None, references=("fedavg",), tree=None, **options):
    options = {"grid": grid, "seeds": 5, "extend": 2} | options
    return study_of(
        {"name": "s", "base": BASE, "rows": rows or {}, "references": list(references), "tune": options} | (tree or {}),
        "s",
    )


def words(tuned, key=("default", "fedavg")):
    return tuned.best[key].words


def test_the_lower_quartile_prefers_the_stable_configuration_to_the_best_mean(pretend):
    edge = {0.2: [0.70] * 5, 0.4: [0.69] * 5, 0.8: [0.98, 0.98, 0.98, 0.30, 0.30]}
    run = pretend(lambda config, seed: edge[config.local.lr][seed])
    tuned = tune(study({"local.lr": [0.2, 0.4, 0.8]}, extend=0), [], run)
    assert np.mean(edge[0.8]) > np.mean(edge[0.2])
    assert words(tuned) == ("local.lr=0.2",)
    assert tuned.best["default", "fedavg"].quartile == 0.70
    assert next(t for t in tuned.trials if t.words == ("local.lr=0.8",)).quartile == np.percentile(edge[0.8], 25)


def test_a_diverged_run_counts_as_the_worst_there_is(pretend):
    run = pretend(lambda config, seed: (None if seed < 2 else 0.99) if config.local.lr == 0.4 else 0.5)
    tuned = tune(study({"local.lr": [0.2, 0.4]}, extend=0), [], run)
    assert words(tuned) == ("local.lr=0.2",)
    lost = next(t for t in tuned.trials if t.words == ("local.lr=0.4",))
    assert (lost.lost, sorted(lost.scores)) == (2, [0.0, 0.0, 0.99, 0.99, 0.99])
    assert lost.quartile == 0.0


def test_a_score_that_is_nan_is_lost_too(pretend):
    run = pretend(lambda config, seed: math.nan if config.local.lr == 0.4 else 0.1)
    assert words(tune(study({"local.lr": [0.4, 0.2]}, extend=0), [], run)) == ("local.lr=0.2",)


def test_a_score_below_zero_still_beats_a_diverged_run(pretend):
    run = pretend(lambda config, seed: None if config.local.lr == 0.4 else -0.2)
    assert words(tune(study({"local.lr": [0.4, 0.2]}, extend=0, score="mcc"), [], run)) == ("local.lr=0.2",)


@pytest.mark.parametrize("lost", [False, True])
def test_where_lower_is_better_the_upper_quartile_decides(pretend, lost):
    scores = {0.2: [0.05, 0.05, 0.05, 0.9, None if lost else 0.9], 0.4: [0.2] * 5}
    run = pretend(lambda config, seed: scores[config.local.lr][seed])
    tuned = tune(study({"local.lr": [0.2, 0.4]}, extend=0, score="ece"), [], run)
    assert words(tuned) == ("local.lr=0.4",)
    assert [t.quartile for t in tuned.trials] == [0.9, 0.2]  # the fourth of five, whatever the fifth
    assert [t.lost for t in tuned.trials] == [int(lost), 0]


def test_of_equal_configurations_the_first_is_chosen(pretend):
    assert words(tune(study({"local.lr": [0.4, 0.2]}, extend=0), [], pretend(lambda *_: 0.5))) == ("local.lr=0.4",)


def test_a_best_value_at_the_upper_end_extends_the_range_until_it_is_passed(pretend):
    run = pretend(lambda config, seed: 1 - abs(math.log(config.local.lr / 0.8)) / 10)
    tuned = tune(study({"local.lr": [0.1, 0.2, 0.4]}, extend=3), [], run)
    assert run.tried() == [[0.1, 0.2, 0.4], [0.8], [1.6]]
    assert words(tuned) == ("local.lr=0.8",)
    assert tuned.edges == {}


def test_a_best_value_at_the_lower_end_extends_downwards_by_the_same_ratio(pretend):
    run = pretend(lambda config, seed: 1 - abs(math.log(config.local.lr / 0.1)) / 10)
    tuned = tune(study({"local.lr": [0.3, 0.9]}, extend=3), [], run)
    assert run.tried() == [[0.3, 0.9], [0.1], [0.0333333]]
    assert words(tuned) == ("local.lr=0.1",)
    assert tuned.edges == {}


def test_what_is_still_at_the_end_after_the_extensions_is_reported(pretend, tmp_path):
    run = pretend(lambda config, seed: config.local.lr / 100)
    tuned = tune(study({"local.lr": [0.1, 0.2]}, extend=2), [], run)
    assert run.tried() == [[0.1, 0.2], [0.4], [0.8]]
    assert tuned.edges == {("default", "fedavg"): ["local.lr"]}
    rows = list(csv.DictReader(write_trials(tuned, tmp_path / "tuning.csv").read_text().splitlines()))
    assert [(row["words"], row["chosen"], row["edge"]) for row in rows] == [
        ("local.lr=0.1", "0", ""),
        ("local.lr=0.2", "0", ""),
        ("local.lr=0.4", "0", ""),
        ("local.lr=0.8", "1", "local.lr"),
    ]


def test_a_next_value_that_cannot_be_run_ends_the_range_and_not_the_study(pretend):
    run = pretend(lambda config, seed: config.local.momentum / 2)
    tuned = tune(study({"local.momentum": [0.5, 0.9]}, extend=2), [], run)  # 0.9 * 1.8 is no momentum
    assert run.tried("momentum") == [[0.5, 0.9]]
    assert words(tuned) == ("local.momentum=0.9",)
    assert tuned.edges == {("default", "fedavg"): ["local.momentum"]}


def test_names_have_no_next_value(pretend):
    run = pretend(lambda config, seed: 0.5 + (config.local.optimizer == "adam") / 10)
    tuned = tune(study({"local.optimizer": ["sgd", "adam"]}), [], run)
    assert len(run.calls) == 1
    assert words(tuned) == ("local.optimizer=adam",)
    assert tuned.edges == {}


def test_only_the_row_at_its_edge_is_tried_further(pretend):
    def score(config, seed):
        best = 0.2 if config.loss["name"] == "ce" else 0.4
        return 1 - abs(math.log(config.local.lr / best))

    run = pretend(score)
    tune(study({"local.lr": [0.1, 0.2, 0.4]}, rows={"focal": ["loss=focal"]}, extend=1), [], run)
    assert {from_json(task.config).loss["name"] for task in run.calls[1]} == {"focal"}
    assert run.tried()[1] == [0.8]


def test_every_row_tries_the_same_number_of_configurations_on_the_same_seeds(pretend):
    run = pretend(lambda config, seed: 0.5)
    rows = {"prox": {"words": ["aggregator=fedprox", "local.lr=0.1"], "tune": {"aggregator.proximal_mu": [1, 2, 3]}}}
    tuned = tune(study({"local.lr": [0.1, 0.2, 0.4]}, rows, ["fedavg", "la_post", "pooled"], extend=0), [], run)
    assert {
        label: sum(t.label == label for t in tuned.trials) for label in ("fedavg", "la_post", "pooled", "prox")
    } == {
        "fedavg": 3,
        "la_post": 3,
        "pooled": 3,
        "prox": 3,
    }
    assert all(len(trial.scores) == 5 for trial in tuned.trials)


def test_tuning_seeds_are_never_those_of_a_comparison(pretend):
    run = pretend(lambda config, seed: 0.5)
    tune(study({"local.lr": [0.1, 0.2]}, seeds=7, extend=0), [], run)
    seeds = {from_json(task.config).seed for call in run.calls for task in call}
    assert seeds == set(range(1000, 1007))


def test_tuning_runs_are_apart_from_the_study_and_not_tracked(pretend):
    run = pretend(lambda config, seed: 0.5)
    tune(study({"local.lr": [0.1, 0.2]}), ["tracking=mlflow", "study=mine"], run)
    for config in run.configs.values():
        assert (config.study, config.tracking["name"], config.evaluation.bootstrap) == ("s.tuning", "none", 0)


def test_settings_choose_each_for_itself_or_share_a_choice(pretend):
    def score(config, seed):
        best = 0.1 if config.partition["alpha"] == 0.5 else 0.4
        return 1 - abs(math.log(config.local.lr / best))

    tree = {"grid": {"partition.alpha": [0.5, 0.1]}}
    each = study({"local.lr": [0.1, 0.2, 0.4]}, tree=tree, extend=0)
    chosen = tune(each, [], pretend(score)).chosen(each)
    assert chosen == {("alpha=0.5", "fedavg"): ("local.lr=0.1",), ("alpha=0.1", "fedavg"): ("local.lr=0.4",)}

    shared = study({"local.lr": [0.1, 0.2, 0.4]}, tree=tree, extend=0, on=["alpha=0.1"])
    run = pretend(score)
    tuned = tune(shared, [], run)
    assert {config.partition["alpha"] for config in run.configs.values()} == {0.1}
    assert tuned.chosen(shared) == dict.fromkeys([("alpha=0.5", "fedavg"), ("alpha=0.1", "fedavg")], ("local.lr=0.4",))


def test_a_choice_shared_by_all_settings_weighs_all_of_them(pretend):
    # in one setting 0.2 is best, in the other it loses every run: the shared quartile must see both
    def score(config, seed):
        return {(0.1, 0.5): 0.6, (0.1, 0.1): 0.6, (0.2, 0.5): 0.9, (0.2, 0.1): None}[
            config.local.lr, config.partition["alpha"]
        ]

    tree = {"grid": {"partition.alpha": [0.5, 0.1]}}
    shared = study({"local.lr": [0.1, 0.2]}, tree=tree, extend=0, on=["alpha=0.5", "alpha=0.1"])
    tuned = tune(shared, [], pretend(score))
    assert words(tuned, ("*", "fedavg")) == ("local.lr=0.1",)
    assert {len(trial.scores) for trial in tuned.trials} == {10}


def test_a_configuration_that_cannot_be_run_is_refused_before_any_run(pretend):
    run = pretend(lambda config, seed: 0.5)
    with pytest.raises(ConfigError, match=r"row 'fedavg' in setting 'default': local\.lr=-1"):
        tune(study({"local.lr": [0.1, -1]}), [], run)
    with pytest.raises(ConfigError, match=r"changes local\.epochs"):
        tune(study({"local.epochs": [1, 2]}), [], run)
    assert run.calls == []


def test_the_csv_holds_every_configuration_with_its_scores(pretend, tmp_path):
    run = pretend(lambda config, seed: None if config.local.lr == 0.4 and seed == 0 else seed / 10)
    tuned = tune(study({"local.lr": [0.1, 0.4]}, extend=0), [], run)
    rows = list(csv.DictReader(write_trials(tuned, tmp_path / "tuning.csv").read_text().splitlines()))
    assert [(row["setting"], row["label"], row["words"], row["lost"]) for row in rows] == [
        ("default", "fedavg", "local.lr=0.1", "0"),
        ("default", "fedavg", "local.lr=0.4", "1"),
    ]
    for row in rows:
        scores = [float(score) for score in row["scores"].split()]
        assert scores == [0.0, 0.1, 0.2, 0.3, 0.4]
        assert float(row["lower_quartile"]) == pytest.approx(np.percentile(scores, 25))
        assert float(row["mean"]) == pytest.approx(np.mean(scores))


def test_quartiles_with_and_without_infinite_scores():
    assert Trial("s", "r", (), (0.1, 0.2, 0.3, 0.4), 0).quartile == pytest.approx(0.175)
    assert Trial("s", "r", (), (0.1, 0.2, 0.3, 0.4), 0, True).quartile == pytest.approx(0.325)
    assert Trial("s", "r", (), (0.1, 0.2, 0.3, math.inf), 1, True).quartile == math.inf
    assert Trial("s", "r", (), (0.1, math.inf, math.inf, math.inf), 3, True).worth == -math.inf


def test_validation_rows_are_scored_at_the_studys_own_seeds(monkeypatch):
    asked = {}

    class Scored:
        def __init__(self, done):
            self.done = done

        def of(self, cell, score):
            assert score == "macro_recall"
            assert cell.seed in (0, 1)
            return asked[cell.task].local.lr - 0.01 * cell.seed

    def run(tasks):
        asked.update({task.key: from_json(task.config) for task in tasks})
        return {task.key: Done(None) for task in tasks}

    monkeypatch.setattr(tuning, "ValidationScores", Scored)
    tuned = tune(study({"local.lr": [0.1, 0.3]}, seeds=2, extend=0, validation=0.25, tree={"seeds": 3}), [], run)
    assert {config.data["validation"] for config in asked.values()} == {0.25}
    assert {config.seed for config in asked.values()} == {0, 1}
    assert words(tuned) == ("local.lr=0.3",)
    assert tuned.best["default", "fedavg"].scores == pytest.approx((0.3, 0.29))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"validation": 0.2, "score": "mcc"}, "'mcc' is not computed on validation rows; give macro_recall or"),
        ({"validation": 0.2, "seeds": 9}, "the study's own seeds are used, and it has 3"),
    ],
)
def test_what_validation_rows_cannot_give_is_refused(options, why):
    with pytest.raises(ConfigError, match=why):
        study({"local.lr": [0.1, 0.3]}, tree={"seeds": 3}, **options)


def test_the_curve_is_the_expected_best_of_the_trials(pretend):
    run = pretend(lambda config, seed: config.local.lr)
    made = study({"local.lr": [0.1, 0.2, 0.4]}, extend=0)
    (curve,) = curves_of(tune(made, [], run), made)
    assert (curve.setting, curve.label, curve.score) == ("default", "fedavg", "macro_recall")
    assert curve.best == pytest.approx((0.7 / 3, 1.0 / 3, 0.4))


def test_where_less_is_better_the_curve_falls(pretend):
    run = pretend(lambda config, seed: config.local.lr)
    made = study({"local.lr": [0.1, 0.2, 0.4]}, extend=0, score="ece")
    (curve,) = curves_of(tune(made, [], run), made)
    assert curve.best == pytest.approx((0.7 / 3, 0.4 / 3, 0.1))


GAINS = {"gains": {"rows": ["mine"]}}
MINE = {"mine": ["loss=focal"]}


def test_rows_whose_gain_is_taken_apart_run_as_given_too_and_are_not_tuned_there(pretend):
    run = pretend(lambda config, seed: config.local.lr)
    rows = MINE | {"fedavg": {"words": [], "tune": {"local.lr": [0.1, 0.3], "local.epochs": [1, 2]}}}
    made = study({"local.lr": [0.1, 0.2, 0.3, 0.5]}, rows, (), GAINS, extend=0)
    tuned = tune(made, [], run)
    assert {label for _, label in tuned.best} == {"mine", "fedavg"}
    cells, tasks = plan(made, tuned.chosen(made))
    configs = {task.key: from_json(task.config) for task in tasks}
    rates = {cell.label: configs[cell.task].local for cell in cells}
    assert rates["mine"].lr == 0.5
    assert rates["fedavg"].lr == 0.3
    assert rates["mine (as given)"].lr == rates["fedavg (as given)"].lr == 0.4  # what the data come with


@pytest.mark.parametrize(
    ("tree", "rows", "why"),
    [
        (GAINS | {"tune": None}, MINE, "give tune:, or leave out gains:"),
        ({"gains": {"rows": ["mime"]}}, MINE, "'mime' is not a row that is tuned. Did you mean 'mine'"),
        ({"gains": {"rows": ["fedavg"]}}, MINE, "named twice, or is the control itself"),
        (GAINS, {"mine": {"words": ["loss=focal"], "tune": {"local.epochs": [1, 2]}}}, "row 'mine' tunes local.epochs"),
        ({}, {"fedavg": {"words": [], "tune": {"local.epochs": [1, 2]}}}, "row 'fedavg' tunes local.epochs"),
    ],
)
def test_gains_that_cannot_be_taken_apart_are_refused_before_any_run(tree, rows, why):
    with pytest.raises(ConfigError, match=why):
        study({"local.lr": [0.1, 0.3]}, rows, tree=tree)
