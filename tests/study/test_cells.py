"""From a study to runs: what is shared, what is refused, in which order."""

import pytest

from fedimb.config.load import from_json
from fedimb.errors import ConfigError
from fedimb.study.cells import plan
from fedimb.study.design import EQUAL, study_of

BASE = ["data.n_max=60", "clients.count=5", "rounds=3", "local.epochs=1", "tracking=none", "evaluation.bootstrap=0"]


def study(rows=None, **tree):
    return study_of({"name": "s", "base": BASE, "rows": rows or {}, "seeds": 2, **tree}, "s")


def configs(tasks):
    return {task.key: from_json(task.config) for task in tasks}


def test_post_hoc_rows_of_one_trunk_are_one_run_per_seed():
    cells, tasks = plan(study())
    by = {(cell.label, cell.seed): cell for cell in cells}
    for seed in (0, 1):
        assert by["fedavg", seed].task == by["la_post", seed].task == by["tau", seed].task
        assert by["uniform", seed].task == by["uniform+la_post", seed].task != by["fedavg", seed].task
        assert by["local_mean", seed].task == by["local_best", seed].task
        assert list(configs(tasks)[by["tau", seed].task].calibration) == ["none", "la_post", "la_post:2", "tau"]
        assert (by["fedavg", seed].calibration, by["tau", seed].calibration) == ("none", "tau")
        assert by["la_post@5", seed].task == by["la_post", seed].task
        assert by["uniform+la_post@5", seed].task == by["uniform", seed].task
    # fedavg, uniform, pooled, pooled+balanced_softmax, majority, local, ncm and lda at 1 and 5: ten tasks a seed
    assert (len(cells), len(tasks)) == (32, 20)
    assert by["fedavg", 0].task != by["fedavg", 1].task


def test_seeds_are_outermost_and_every_task_has_the_seed_of_its_cells():
    cells, tasks = plan(study(seeds=[7, 3]))
    assert [cell.seed for cell in cells] == [7] * 16 + [3] * 16
    found = configs(tasks)
    assert all(found[cell.task].seed == cell.seed for cell in cells)


def test_a_calibration_with_other_arguments_is_another_row_of_the_same_run():
    rows = {"half": ["calibration=tau", "calibration.tau.tau=0.5"]}
    cells, tasks = plan(study(rows, references=["fedavg", "tau"], seeds=1))
    (task,) = tasks
    found = from_json(task.config).calibration
    assert {cell.label: (cell.task, found[cell.calibration].get("tau")) for cell in cells} == {
        "fedavg": (task.key, None),
        "tau": (task.key, 1.0),
        "half": (task.key, 0.5),
    }


def test_a_tuned_row_leaves_the_trunk_of_those_tuned_otherwise():
    chosen = {("default", "fedavg"): ("local.lr=0.2",), ("default", "la_post"): ("local.lr=0.2",)}
    cells, tasks = plan(study(references=["fedavg", "la_post", "tau", "local_mean"], seeds=1), chosen)
    of = {cell.label: cell.task for cell in cells}
    assert of["fedavg"] == of["la_post"] != of["tau"]
    found = configs(tasks)
    assert found[of["local_mean"]].local.lr == found[of["fedavg"]].local.lr == 0.2  # as FedAvg was tuned


def test_settings_that_differ_share_nothing_but_the_pooled_rows():
    cells, _ = plan(study(grid={"partition.alpha": [0.5, 0.1]}, seeds=1))
    tasks = {}
    for cell in cells:
        tasks.setdefault(cell.label, set()).add(cell.task)
    assert {label for label, own in tasks.items() if len(own) == 1} == {"pooled", "pooled+balanced_softmax"}


def test_pooled_rows_have_one_client_and_no_partition():
    cells, tasks = plan(study(references=["fedavg", "pooled"], grid={"partition.alpha": [0.1]}, seeds=1))
    pooled = configs(tasks)[next(cell.task for cell in cells if cell.label == "pooled")]
    assert (pooled.clients.count, pooled.partition["name"]) == (1, "iid")
    assert (pooled.rounds, pooled.local.epochs, pooled.data["n_max"]) == (3, 1, 60)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("rounds=4", "rounds"),
        ("local.epochs=2", "local.epochs"),
        ("local.batch_size=8", "local.batch_size"),
        ("evaluation.every=2", "evaluation.every"),
        ("evaluation.last_k=2", "evaluation.last_k"),
        ("data.n_max=50", "data"),
        ("data.imbalance_factor=5", "data"),
        ("clients.count=4", "clients"),
        ("clients.participation=0.5", "clients"),
        ("clients.models={kinds: {wide: {name: mlp, hidden: [96]}}, at: {1: wide}}", "clients"),
        ("partition.alpha=10", "partition"),
        ("partition=iid", "partition"),
    ],
)
def test_a_row_on_other_terms_is_refused(word, key):
    assert key in EQUAL
    with pytest.raises(ConfigError, match=f"row 'mine' changes {key} .*set it in base or in a setting"):
        plan(study({"mine": ["loss=focal", word]}, references=["fedavg"]))


PHASED = [*BASE, "partition=class_incremental", "partition.phases=3"]


def test_rows_of_all_classes_at_once_are_no_bar_for_one_by_phases():
    rows = {"by phases": ["strategy=class_incremental"]}
    with pytest.raises(ConfigError, match="row 'by phases' in setting 'default' trains by phases, and 'la_post', of"):
        plan(study(rows, base=PHASED))
    plan(study(rows, base=PHASED, references=["fedavg", "la_post"], bar=False))
    plan(study(base=PHASED))  # all of them at once


def test_tuning_by_what_is_forgotten_needs_rows_that_forget():
    rows = {"by phases": ["strategy=class_incremental"]}
    own = {"base": PHASED, "bar": False, "tune": {"score": "forgetting", "grid": {"local.lr": [0.1, 0.2]}}}
    with pytest.raises(ConfigError, match="row 'fedavg' in setting 'default' trains on all classes at once and"):
        plan(study(rows, references=["fedavg"], **own))
    plan(study(rows, references=False, **own))


def test_a_row_may_leave_a_part_of_each_model_at_its_client():
    plan(study({"mine": ["strategy=fedproto", "clients.private=['*']"]}, references=["fedavg"]))


@pytest.mark.parametrize("word", ["rounds=4", "data.n_max=50", "local.epochs=2"])
def test_a_pooled_row_makes_the_same_steps_on_the_same_data_too(word):
    from fedimb.study.references import REFERENCES

    with pytest.raises(ConfigError, match="row 'pooled' changes"):
        plan(study({"pooled": [*REFERENCES["pooled"].words, word]}))


def test_tuning_cannot_choose_more_steps():
    with pytest.raises(ConfigError, match=r"row 'la_post' changes local\.epochs"):
        plan(study(references=["la_post"]), {("default", "la_post"): ("local.epochs=2",)})


@pytest.mark.parametrize("words", [[], ["local.lr=0.05"], ["aggregator=fedavg", "loss=ce"]])
def test_two_rows_that_are_one_run_are_refused(words):
    rows = {"twin": words} if words != ["local.lr=0.05"] else {"one": words, "twin": ["local.lr=5e-2"]}
    other = "one" if "one" in rows else "fedavg"
    with pytest.raises(ConfigError, match=f"rows '{other}' and 'twin' are the same run"):
        plan(study(rows, references=["fedavg"]))


def test_a_tuned_row_may_stand_beside_its_untuned_twin():
    fixed = {"words": ["loss=focal", "local.lr=0.4"], "tune": {"loss.gamma": [1, 3]}}
    rows = {"tuned lr": ["loss=focal"], "fixed lr": fixed}
    own = study(rows, references=False, tune={"grid": {"local.lr": [0.1, 0.4]}})
    cells, tasks = plan(own, None, ["local.lr=0.4"])
    assert {cell.label for cell in cells} == set(rows)
    assert {cell.task for cell in cells} == {task.key for task in tasks}
    chosen = {("default", "tuned lr"): ("local.lr=0.1",), ("default", "fixed lr"): ("loss.gamma=3",)}
    assert len(plan(own, chosen)[1]) == 2 * len(tasks)
    alike = study({"one": ["loss=focal"], "two": ["loss=focal"]}, references=False, tune={"grid": {"local.lr": [0.1]}})
    with pytest.raises(ConfigError, match="same run"):
        plan(alike)


def test_a_row_of_two_calibrations_is_refused():
    with pytest.raises(ConfigError, match="row 'both' has 2 calibrations; make each a row of its own"):
        plan(study({"both": ["calibration=[none,tau]"]}, references=False))


def test_a_wrong_word_names_row_and_setting():
    with pytest.raises(
        ConfigError, match=r"row 'mine' in setting 'alpha=0\.5': no loss 'focall'. Did you mean 'focal'"
    ):
        plan(study({"mine": ["loss=focall"]}, grid={"partition.alpha": [0.5]}))
    with pytest.raises(ConfigError, match="row 'mine' in setting 'default': refused combination"):
        plan(study({"mine": ["loss=balanced_softmax", "calibration=la_post"]}))


@pytest.mark.parametrize(
    "where",
    [{"base": [*BASE, "seed=3"]}, {"settings": {"a": ["seed=3"]}}, {"rows": {"mine": ["loss=focal", "seed=3"]}}],
)
def test_a_seed_among_the_words_would_be_ignored_and_is_refused(where):
    tree = {"rows": {}} | where
    with pytest.raises(ConfigError, match="'seed=3': a study sets its own seeds; set seeds:"):
        plan(study(**tree))
    with pytest.raises(ConfigError, match="set seeds:"):
        plan(study(), more=["seed=3"])


def test_runs_are_inline_unless_an_engine_is_asked_for():
    _, tasks = plan(study(references=["fedavg"], seeds=1))
    assert [config.engine["name"] for config in configs(tasks).values()] == ["inline"]
    _, tasks = plan(study(references=["fedavg"], seeds=1), more=["engine=ray"])
    assert [config.engine["name"] for config in configs(tasks).values()] == ["ray"]


def test_more_words_come_last_and_hold_for_computed_rows_too():
    _, tasks = plan(study(references=["fedavg", "majority"], seeds=1), more=["rounds=2", "data.n_max=50"])
    assert {(c.rounds, c.data["n_max"]) for c in configs(tasks).values()} == {(2, 50)}


def test_chosen_seeds_and_settings_and_no_computed_rows():
    one = study(grid={"partition.alpha": [0.5, 0.1]})
    cells, _ = plan(one, seeds=[1000], settings=["alpha=0.1"], computed=False)
    assert {(cell.setting, cell.seed) for cell in cells} == {("alpha=0.1", 1000)}
    assert {cell.kind for cell in cells} == {"run"}


def test_reference_rows_are_known_and_those_a_study_defines_itself_are_its_own():
    cells, _ = plan(study({"fedavg": ["local.lr=0.2"], "mine": ["loss=focal"]}, seeds=1))
    assert {cell.label for cell in cells if not cell.reference} == {"fedavg", "mine"}
    assert {"la_post", "majority", "local_mean"} <= {cell.label for cell in cells if cell.reference}


def test_sums_are_over_the_inputs_that_the_other_rows_have():
    def model(label, *words):
        cells, tasks = plan(study(base=[*BASE, *words], seeds=1))
        (cell,) = [cell for cell in cells if cell.label == label]
        return configs(tasks)[cell.task].model

    assert model("lda")["name"] == model("ncm@5")["name"] == "logistic"
    encoded = ("model=encoded", "model.encoder.name=random_features")
    assert model("lda", *encoded) == model("fedavg", *encoded)
    with pytest.raises(ConfigError, match=r"row 'other' has encoder .* the bar and all rows need the same inputs"):
        plan(study({"other": list(encoded)}))
    plan(study({"other": list(encoded)}, bar=False))
