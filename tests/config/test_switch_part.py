"""``X.name=other``: the arguments that only the former part takes go with it; those the user gave stay."""

import shlex

import pytest

from fedimb.config.compose import compose
from fedimb.config.load import config_sha
from fedimb.config.validate import validate
from fedimb.errors import ConfigError


def chosen(words: str) -> str:
    """The hash of the configuration that these words give."""
    return config_sha(validate(compose(shlex.split(words))))


@pytest.mark.parametrize(
    ("one_word", "in_full"),
    [
        ("data.test.name=official", "'data.test={name: official}'"),
        (
            "data=tabular_csv data.test.name=temporal data.test.since='2023-01-01'",
            "data=tabular_csv 'data.test={name: temporal, since: 2023-01-01}'",
        ),
        (
            "data=tabular_csv data.test.name=temporal",
            "data=tabular_csv 'data.test={name: temporal, fraction: 0.2}'",
        ),
        ("data.test.name=none", "'data.test={name: none}'"),
        ("data.test.fraction=0.3 data.test.name=stratified", "'data.test={name: stratified, fraction: 0.3}'"),
        ("data.test.name=stratified data.test.fraction=0.3", "'data.test={name: stratified, fraction: 0.3}'"),
        ("data=heart_four data.test.name=stratified", "data=heart_four 'data.test={name: stratified, fraction: 0.2}'"),
        (
            "data=npz data.test.name=temporal data.test.fraction=0.3",
            "data=npz 'data.test={name: temporal, fraction: 0.3}'",
        ),
        (
            "data=tabular_csv data.test.name=temporal 'data.test.since=\"2020-01-01\"'",
            "data=tabular_csv 'data.test={name: temporal, since: \"2020-01-01\"}'",
        ),
        (
            "data=heart_severe data.test.name=by_patient data.test.fraction=0.3 data.test.min_per_class=2",
            "data=heart_severe 'data.test={name: by_patient, fraction: 0.3, min_per_class: 2}'",
        ),
        ("partition.name=iid", "partition=iid"),
        ("partition.name=pathological partition.classes_per_client=2", "partition=pathological"),
        ("partition.name=dir_balance", "partition=dir_balance partition.alpha=0.5"),
        (
            "partition.minority_placement=absent partition.name=iid",
            "partition=iid partition.minority_placement=absent",
        ),
        ("model.name=logistic model.head=linear", "model=logistic"),
        ("data.source.name=synthetic_table data.source.rows=500", "'data.source={name: synthetic_table, rows: 500}'"),
        (
            "data=heart_four data.source.name=npz data.source.path=a.npz",
            "data=heart_four 'data.source={name: npz, path: a.npz}'",
        ),
        ("loss=focal loss.name=ce", "loss=ce"),
        ("sampler=rotating sampler.name=shuffle", "sampler=shuffle"),
        ("aggregator=fedadam aggregator.name=fedavg", "aggregator=fedavg"),
        ("aggregator=fedprox aggregator.name=fedavg", "aggregator=fedavg"),
        ("aggregator=scaffold aggregator.name=fedmedian", "aggregator=fedmedian"),
        ("aggregator=fedadam aggregator.name=fedyogi", "aggregator=fedyogi"),
        (
            "strategy=active strategy.active.query.name=badge",
            "strategy=active 'strategy.active.query={name: badge}'",
        ),
        ("engine.name=inline", "engine=inline"),
        ("tracking.name=none", "tracking=none"),
    ],
)
def test_one_word_chooses_another_part(one_word: str, in_full: str) -> None:
    assert chosen(one_word) == chosen(in_full)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("data.test.per_class=5 data.test.name=official", r"data\.test \(official\) has no argument 'per_class'"),
        ("data.test.name=official 'data.test={per_class: 5}'", r"data\.test \(official\) has no argument 'per_class'"),
        ("data.test.name=stratified", r"data\.test\.fraction=None: give a number between 0 and 1"),
        ("data.test.name=offical", r"data\.test\.name: no test split 'offical'\. Did you mean 'official'"),
        ("partition.name=iid partition.alpha=0.5", "partition 'iid' has no argument 'alpha'"),
        ("partition.name=idd", "no partition 'idd'"),
        ("model.hidden=[8] model.name=logistic", "model 'logistic' has no argument 'hidden'"),
        ("aggregator.name=moon", "alone lacks the local objectives that make it moon: choose it by aggregator=moon"),
        ("strategy.name=scope", r"so write strategy=NAME or strategy=\[A,B\]"),
        ("calibration.name=none", r"so write calibration=NAME or calibration=\[A,B\]"),
    ],
)
def test_what_the_user_gave_stays_and_is_refused_if_wrong(words: str, refused: str) -> None:
    with pytest.raises(ConfigError, match=refused) as caught:
        chosen(words)
    assert "\n" not in str(caught.value)


def test_objectives_that_a_default_gives_by_value_stay(tmp_path) -> None:
    folder = tmp_path / "aggregator"
    folder.mkdir()
    (folder / "pulled.yaml").write_text("name: fedavg\nobjectives:\n  - {name: proximal, mu: 0.1}\n")
    config = compose(["aggregator=pulled", "aggregator.name=fedavgm"], [tmp_path])
    assert config["aggregator"] == {"name": "fedavgm", "objectives": [{"name": "proximal", "mu": 0.1}]}
    assert "objectives" in compose(["aggregator=pulled", "aggregator.name=fedavg"], [tmp_path])["aggregator"]
