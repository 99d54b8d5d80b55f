"""A study's file: what it says, and one line for what it says wrongly."""

import pytest

from fedimb.errors import ConfigError
from fedimb.study.design import (
    TUNING_SEEDS_FROM,
    BarSettings,
    Row,
    allowed,
    grid_points,
    points_of,
    read_study,
    study_of,
)
from fedimb.study.references import FREE, MIN_COUNTS, REFERENCES, at_min_count, without_partition

BY_DEFAULT = [label for label, row in REFERENCES.items() if not row.by_name]


def written(tmp_path, text):
    path = tmp_path / "baselines.yaml"
    path.write_text(text)
    return path


def test_an_empty_study_is_the_reference_rows_of_three_seeds(tmp_path):
    study = read_study(written(tmp_path, "about: nothing of its own\n"))
    assert study.name == "baselines"
    assert study.labels == BY_DEFAULT
    assert study.seed_list == [0, 1, 2]
    assert study.setting_words == {"default": ()}


def test_the_reference_rows_are_those_every_comparison_owes():
    runs = {label: set(REFERENCES[label].words) for label in BY_DEFAULT if REFERENCES[label].computed is None}
    assert {label for label, row in REFERENCES.items() if row.computed} == {"majority", "local_mean", "local_best"}
    assert runs["fedavg"] == set()
    assert runs["la_post"] == {"calibration=la_post"}
    assert runs["tau"] == {"calibration=tau"}
    assert runs["uniform"] == {"aggregation_weight=uniform"}
    assert runs["uniform+la_post"] == {"aggregation_weight=uniform", "calibration=la_post"}
    assert {"clients.count=1", "partition=iid"} <= runs["pooled"]
    assert runs["pooled+balanced_softmax"] == runs["pooled"] | {"loss=balanced_softmax"}
    assert set(runs) - every_free() == {"pooled", "pooled+balanced_softmax", "fedavg", "uniform", "tau"}
    assert every_free() <= set(runs)
    assert runs["la_post@5"] == {"calibration=la_post", "calibration.la_post.min_count=5"}
    sums = {"strategy=oneround", "model=logistic", "strategy.oneround.secure=false"}
    assert runs["lda"] == sums | {"strategy.oneround.min_count=1"}
    assert runs["ncm@5"] == sums | {"strategy.oneround.head=ncm", "strategy.oneround.min_count=5"}


def every_free():
    return {at_min_count(label, count) for label in FREE for count in MIN_COUNTS}


def test_the_bar_is_on_where_all_free_rows_are():
    assert study_of({"name": "s"}, "s").bar_settings == BarSettings()
    assert study_of({"name": "s", "references": ["fedavg", "la_post"]}, "s").bar_settings is None
    one = study_of({"name": "s", "references": ["fedavg", *FREE]}, "s")
    assert one.bar_settings == BarSettings(min_counts=(1,))
    off = study_of({"name": "s", "bar": False}, "s")
    assert off.bar_settings is None
    assert not [label for label in off.labels if "@" in label]
    assert set(FREE) <= set(off.labels)
    without = study_of({"name": "s", "bar": {"rows": ["la_post", "ncm"]}}, "s")
    assert {"ncm@5", "la_post"} <= set(without.labels)
    assert not {"lda", "lda@5", "uniform+la_post"} & set(without.labels)


def test_data_sets_are_crossed_with_settings_and_remembered():
    tree = {"name": "s", "data_sets": ["digits", "glass"], "settings": {"even": ["partition=iid"]}}
    study = study_of(tree | {"grid": {"clients.count": [3, 5]}}, "s")
    assert list(study.setting_words) == [f"{s} even count={k}" for s in ("digits", "glass") for k in (3, 5)]
    assert study.setting_words["glass even count=5"] == ("data=glass", "partition=iid", "clients.count=5")
    assert set(study.data_set_of.values()) == {"digits", "glass"}
    named = study_of({"name": "s", "data_sets": {"few": ["data=digits", "data.n_max=60"]}}, "s")
    assert named.setting_words == {"few": ("data=digits", "data.n_max=60")}
    assert set(study_of({"name": "s"}, "s").data_set_of.values()) == {""}


def test_rows_that_train_nothing_are_not_tuned():
    study = study_of({"name": "s", "tune": {"grid": {"local.lr": [0.1, 0.2]}}}, "s")
    assert set(study.all_rows) - set(study.tuned_rows) == {"ncm", "lda", "ncm@5", "lda@5"}


REGISTERED = {
    "name": "s",
    "data_sets": ["digits", "glass"],
    "rows": {"focal": ["loss=focal"]},
    "registration": {"contrasts": [["focal", "bar"]], "margin_reason": "why"},
}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"data_sets": ["digits", "digits"]}, "data_sets: a data set is named twice"),
        ({"data_sets": [3]}, "data_sets: expected names of data sets"),
        ({"data_sets": "digits"}, "data_sets: expected a list of data sets"),
        ({"bar": {"rows": ["la_pots"]}}, "bar.rows: 'la_pots' is not a free row.*Did you mean 'la_post'"),
        ({"bar": {"rows": []}}, "give rows to choose from"),
        ({"bar": {"margn": 0.01}}, "no key 'bar.margn' in a study. Did you mean 'margin'"),
        ({"bar": {"margin": 0}}, "bar.margin: Input should be greater than 0"),
        ({"bar": True, "references": ["la_post"]}, "the bar is chosen from .* add .*lda.* to references"),
        (REGISTERED | {"data_sets": ["digits"]}, "over data sets, and the study has 1"),
        (REGISTERED | {"references": ["fedavg"]}, "the study has none: give references: true"),
        (REGISTERED | {"rows": {"bar": ["loss=focal"]}}, "a row called 'bar'"),
    ],
)
def test_what_a_study_says_wrongly_of_bar_and_data_sets_is_one_line(tree, message):
    with pytest.raises(ConfigError, match=message) as refused:
        study_of({"name": "s"} | tree, "s")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ([["focla", "bar"]], "no row 'focla'.*Did you mean 'focal'"),
        ([["bar", "focal"]], "the bar second"),
        ([["focal", "focal"]], "two different rows"),
        ([["focal", "bar"]] * 2, "given twice"),
        ([["focal", label] for label in BY_DEFAULT[:7]], "at most 6"),
        ([], "give at least one"),
    ],
)
def test_contrasts_are_few_and_of_rows_that_exist(contrasts, message):
    tree = REGISTERED | {"registration": REGISTERED["registration"] | {"contrasts": contrasts}}
    with pytest.raises(ConfigError, match=message):
        study_of(tree, "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sedes: 3", "no key 'sedes' in a study. Did you mean 'seeds'?"),
        ("rows: {a: {wrods: [loss=focal]}}", "no key 'rows.a.wrods' in a study. Did you mean 'words'?"),
        ("tune: {gird: {local.lr: [1, 2]}}", "no key 'tune.gird' in a study. Did you mean 'grid'?"),
        ("costs: {matrx: uniform}", "no key 'costs.matrx' in a study. Did you mean 'matrix'?"),
        ("tune: {seeds: 3}", "tune.grid: is missing"),
        ("references: [fedav]", "no reference row 'fedav'. Did you mean 'fedavg'?"),
        ("references: nearly", "references: expected true, false, or a list of row labels"),
        ("references: false", "the study has no rows; give rows, or references"),
        ("seeds: many", "seeds: expected a number of seeds, or a list of them"),
        ("seeds: 0", "seeds: give a number of at least 1"),
        ("seeds: []", "seeds: give a number of at least 1"),
        ("seeds: [1, 1]", "a list of different seeds"),
        ("seeds: [-1]", "seeds of at least 0"),
        ("seeds: [3, 1000]", "seeds from 1000 on are for tuning"),
        ("seeds: 1001", "seeds from 1000 on are for tuning"),
        ("base: data=digits", "base: expected a list of settings"),
        ("rows: {a: loss=focal}", "rows.a.words: expected a list of settings"),
        ("grid: {local.lr: 3}", "grid.local.lr: expected a list of values"),
        ("grid: {local.lr: []}", "local.lr has no values"),
        ("grid: {local.lr: [0.1, 0.1]}", "local.lr has no values, or one twice"),
        ("rows: {a: {tune: {local.lr: []}}}", "local.lr has no values"),
        ("tune: {grid: {local.lr: []}}", "local.lr has no values"),
        ("control: la_pots", "control 'la_pots' is not a row. Did you mean 'la_post'?"),
        ("tune: {grid: {local.lr: [1]}, on: [alpha]}", "no setting 'alpha'"),
        ("tune: {grid: {local.lr: [1]}, on: []}", "tune.on: give at least one"),
        ("tune: {grid: {local.lr: [1]}, score: macro_recal}", "Did you mean 'macro_recall'?"),
        ("margin: 0", "margin: Input should be greater than 0"),
        ("name: a+b", "name: expected letters, digits, spaces and _ . - only"),
        ("- a\n- b", "is not a study: it needs a mapping"),
        ("", "is not a study: it needs a mapping"),
        ("rows: {a: [calibration=[none]]}", "cannot be read: while parsing a flow sequence"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_file(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_study(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        read_study(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes\.yaml cannot be read"):
        read_study(tmp_path / "bytes.yaml")


def test_the_last_seed_before_tuning_is_allowed():
    assert study_of({"name": "s", "seeds": [TUNING_SEEDS_FROM - 1]}, "s").seed_list == [999]


def test_settings_are_crossed_with_the_grid():
    tree = {
        "name": "s",
        "settings": {"few": ["clients.count=5"], "many": ["clients.count=50"]},
        "grid": {"partition.alpha": [0.5, 0.1], "data.imbalance_factor": [20]},
    }
    assert study_of(tree, "s").setting_words == {
        f"{name} alpha={alpha} imbalance_factor=20": (
            f"clients.count={count}",
            f"partition.alpha={alpha}",
            "data.imbalance_factor=20",
        )
        for name, count in (("few", 5), ("many", 50))
        for alpha in (0.5, 0.1)
    }


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0.1, "0.1"),
        (3, "3"),
        (True, "true"),
        (None, "null"),
        ("1e-3", "1e-3"),
        (["none", "tau"], "[none, tau]"),
        ({"a": 1}, "{a: 1}"),
        (list(range(60)), str(list(range(60)))),
    ],
)
def test_a_value_becomes_one_word_of_one_line_that_the_command_line_reads(value, word):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert grid_points({"key": [value]}) == [(f"key={word}",)]
    read = OverridesParser.create().parse_override(f"key={word}").value()
    assert read == (float(value) if value == "1e-3" else value)


def test_a_row_is_words_or_a_mapping_and_a_reference_may_be_redefined():
    tree = {
        "name": "s",
        "rows": {"a": ["loss=focal"], "b": {"words": ["loss=focal"]}, "fedavg": ["local.momentum=0.9"]},
    }
    study = study_of(tree, "s")
    assert study.rows["a"].words == study.rows["b"].words == ("loss=focal",)
    assert study.all_rows["fedavg"].words == ("local.momentum=0.9",)
    assert study.labels == [*BY_DEFAULT, "a", "b"]


def test_tune_on_is_read_from_yaml_though_it_says_true_there(tmp_path):
    text = "grid: {partition.alpha: [0.5, 0.1]}\ntune: {grid: {local.lr: [1]}, on: [alpha=0.5]}"
    study = read_study(written(tmp_path, text))
    assert study.tune is not None
    assert study.tune.on == ["alpha=0.5"]
    assert study_of(study.model_dump(), "again") == study


GRID = {"local.lr": [0.1, 0.2, 0.4]}


def tuned(row, **tune):
    return study_of({"name": "s", "rows": {"own": row}, "tune": {"grid": GRID, **tune}}, "file")


@pytest.mark.parametrize(
    ("row", "tune", "tries"),
    [
        ({"words": ["aggregator=fedprox"], "tune": {"aggregator.proximal_mu": [0.01, 0.1]}}, {}, 6),
        ({"tune": {"local.lr": [0.1, 0.2]}}, {}, 2),
        ({"words": ["local.lr=0.1"]}, {}, 1),  # a row that fixes what the others tune
        ({"tune": {"local.lr": [1, 2, 3, 4]}}, {"configurations": 3}, 4),
    ],
)
def test_a_row_that_tries_more_or_fewer_configurations_is_refused(row, tune, tries):
    with pytest.raises(ConfigError, match=f"row 'own' tries {tries} configurations, but each row must try 3"):
        tuned(row, **tune)


def test_configurations_is_no_way_around_equal_numbers():
    with pytest.raises(ConfigError, match="tries 3 configurations, but each row must try 6"):
        tuned(
            {"words": ["aggregator=fedprox"], "tune": {"aggregator.proximal_mu": [0.01, 0.1]}},
            configurations=6,
        )


def test_own_knobs_replace_those_of_the_study():
    row = {"words": ["aggregator=fedprox", "local.lr=0.2"], "tune": {"aggregator.proximal_mu": [0.1, 1, 10]}}
    study = tuned(row)
    assert points_of(study, study.rows["own"]) == [(f"aggregator.proximal_mu={mu}",) for mu in (0.1, 1, 10)]
    assert points_of(study, Row()) == grid_points(GRID)
    assert allowed(study) == 3


def test_pooled_rows_keep_all_words_but_the_partition():
    words = ("partition=dirichlet", "partition.alpha=0.1", "+partition.x=1", "data.n_max=60", "partitions=3")
    assert without_partition(words) == ("data.n_max=60", "partitions=3")
