"""Words with several values as runs."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.config.load import from_json
from fedimb.errors import ConfigError
from fedimb.study.sweep import expand, name_of, sweep_tasks, top_level


def test_every_combination_the_last_word_fastest():
    assert expand(["seed=0,1", "loss=ce,focal"]) == [
        ("seed=0", "loss=ce"),
        ("seed=0", "loss=focal"),
        ("seed=1", "loss=ce"),
        ("seed=1", "loss=focal"),
    ]
    assert expand(["rounds=3"]) == [("rounds=3",)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2", ["1", "2"]),
        ("[none,la_post]", ["[none,la_post]"]),
        ("[a,b],[c]", ["[a,b]", "[c]"]),
        ("{a: 1, b: 2},3", ["{a: 1, b: 2}", "3"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("", [""]),
        ("1,", ["1", ""]),
        ("f(1,2)", ["f(1,2)"]),
    ],
)
def test_only_commas_outside_brackets_and_quotes_part_values(text, values):
    assert top_level(text) == values


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True), min_size=1, max_size=3))
def test_as_many_combinations_as_the_product(columns):
    words = [f"key{i}=" + ",".join(map(str, values)) for i, values in enumerate(columns)]
    expected = [tuple(f"key{i}={v}" for i, v in enumerate(point)) for point in itertools.product(*columns)]
    assert expand(words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0,0"], "'seed=0,0' gives a value twice"),
        (["seed=0,,1"], "has an empty value"),
        (["seed"], "cannot read 'seed'"),
        (["seed=0,1", "seed=2"], "'seed' is given twice; give all its values in one word"),
        (["loss=ce,focall"], "loss=focall: no loss 'focall'. Did you mean 'focal'"),
        (["los=ce,focal"], "los=ce: no setting 'los'. Did you mean 'loss'"),
        (
            ["loss=ce,balanced_softmax", "calibration=none,la_post"],
            "loss=balanced_softmax calibration=la_post: refused",
        ),
        (["engine=inline,ray"], "'engine=ray' and 'engine=inline' are the same run"),
        (["study=a,b"], "'study=b' and 'study=a' are the same run"),
        (["local.lr=1,1.0"], "are the same run"),
        (["local.schedule={name:step},{name:cosine}", "local.schedule.warmup=3"], "'local.schedule.warmup'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_run(words, message):
    with pytest.raises(ConfigError) as error:
        sweep_tasks(words)
    assert message in str(error.value)


def test_tasks_name_what_varies_and_run_in_workers_unless_an_engine_is_named():
    configs, tasks = sweep_tasks(["seed=0,1", "rounds=3", "loss=focal"])
    assert [task.what for task in tasks] == ["seed=0", "seed=1"]
    assert [from_json(task.config).seed for task in tasks] == [0, 1] == [config.seed for config in configs]
    assert {config.engine["name"] for config in configs} == {"inline"}
    assert sweep_tasks(["engine=ray"])[0][0].engine["name"] == "ray"


@pytest.mark.parametrize(
    ("words", "key", "values"),
    [
        (
            ["data=npz", "data.source={name:npz,path:a.npz},{name:npz,path:b.npz}", "data.source.validation=drop"],
            "data.source.validation",
            ["drop", "drop"],
        ),
        (["local.lr=0.5", "local={lr:0.2,epochs:2},{lr:0.3,epochs:3}"], "local.lr", [0.2, 0.3]),
    ],
)
def test_words_hold_in_the_order_in_which_they_are_written(words, key, values):
    found = [config.model_dump() for config in sweep_tasks(words)[0]]
    for step in key.split("."):
        found = [node[step] for node in found]
    assert found == values


def test_the_same_words_have_the_same_folder_and_others_another():
    words = ["seed=0,1", "loss=ce,focal"]
    assert sweep_tasks(words)[0][0].study == name_of(words) == sweep_tasks(words)[0][1].study
    assert name_of(words) != name_of([*words, "rounds=3"])
    assert sweep_tasks([*words, "study=mine"])[0][0].study == "mine"
