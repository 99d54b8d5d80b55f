"""A word that a run does not read is refused, one that it reads is not; runs show that the table is true."""

import json

import pytest

from fedimb import registry
from fedimb.config.compose import compose
from fedimb.config.load import from_json
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.study.cells import plan
from fedimb.study.design import Study
from fedimb.study.sweep import sweep_tasks
from fedimb.study.tuning import check_tuning
from tests.support.small_runs import SMALL, launch_in, weights_sha

ONE = "strategy=oneround model=logistic"
BATCH = "model=cnn4conv model.width=4 model.norm=batch"  # its statistics are a weighted mean with any aggregator
PUBLIC = "strategy=public data.public=5"

UNREAD = [  # (words, the last of which changes nothing; the choice that the reason names)
    ("local.optimizer=adam local.momentum=0.9", "local.optimizer=adam"),
    ("prior.weighting=effective", "no part uses class counts"),
    ("loss=balanced_softmax prior.epsilon=2", "prior.provenance=clear_sum"),
    ("loss=balanced_softmax prior.view=real", "choose a resampler"),
    ("loss=balanced_softmax prior.provenance=local prior.weighting=effective", "prior.provenance=local"),
    ("privacy.clip=1 privacy.delta=0.01", "privacy.noise=0"),
    ("clients.slow_delay_s=3", "clients.slow=0"),
    ("clients.min_members=2", "clients.regions=null"),
    ("evaluation.subgroup_floor=10", "data.subgroups"),
    ("pace.sigma=2", "pace.clock=false"),
    ("pace=deadline pace.slow_factor=30", "pace.slow=0"),
    ("pace=deadline pace.correlate=size", "pace.rho=0"),
    ("pace=deadline pace.after_s=3 pace.quantile=0.5", "pace.after_s=3"),
    ("partition.minority_clients=3", "partition.minority_placement=null"),
    ("data.long_tail=natural data.class_order=fixed", "data.long_tail=natural"),
    (f"{ONE} rounds=7", "use=alone"),
    (f"{ONE} loss=focal", "use=alone"),
    (f"{ONE} sampler=uniform", "use=alone"),
    (f"{ONE} aggregator=fedprox", "use=alone"),
    (f"{ONE} local.lr=0.01", "use=alone"),
    (f"{ONE} clients.participation=0.4", "use=alone"),
    (f"{ONE} strategy.oneround.metric=cosine", "head=ncm"),
    (f"{ONE} strategy.oneround.delta=0.01", "strategy.oneround.epsilon=null"),
    (f"{PUBLIC} strategy.public.head_epochs=3", "use=head or ccvr"),
    (f"{PUBLIC} strategy.public.use=only local.epochs=3", "use=only"),
    ("aggregator=moon aggregator.objectives=[moon] aggregator.mu=30", "aggregator.objectives"),
    ("strategy=coreset strategy.coreset.epochs=3", "strategy.coreset.rule=random"),
    ("loss=ldam loss.drw_start=1 loss.beta=0.9", "loss.drw_start=1"),
]

REFUSED_FOR_ALL = ("pace.sigma=2", "loss=balanced_softmax prior.provenance=local prior.weighting=effective")
"""Of these, what a part or a rule about combinations refuses in whatever way it is said: no run can show it."""

READ = [
    "local.optimizer=adam local.momentum=0",
    "prior.view=train prior.provenance=none",
    "loss=balanced_softmax prior.provenance=dp_sum prior.epsilon=2",
    "calibration=la_post prior.weighting=effective",
    "pace=deadline pace.sigma=2",
    "pace=buffered pace.slow=.1 pace.correlate=minority pace.rho=1",
    "partition.minority_placement=absent partition.minority_clients=3",
    f"{ONE} rounds=1 loss=ce sampler=shuffle aggregator=fedavg",
    f"{ONE} strategy.oneround.head=ncm strategy.oneround.metric=cosine",
    "strategy=oneround strategy.oneround.use=post aggregator=fedprox rounds=7",
    f"{PUBLIC} strategy.public.use=only local.lr=0.01",
    f"{PUBLIC} strategy.public.use=only loss=focal",
    "aggregator=multikrum aggregation_weight=uniform",
    "pace=buffered aggregation_weight=uniform",
    "aggregator=krum aggregation_weight=uniform",
    "aggregator=qfedavg aggregation_weight=uniform",
    "pace=fedasync aggregation_weight=uniform",
    "aggregator=moon aggregator.mu=30",
    "aggregator=moon aggregator.mu=30 'aggregator.objectives=[{name:moon,mu:\"${aggregator.mu}\"}]'",
    "strategy=coreset strategy.coreset.rule={name:el2n} strategy.coreset.epochs=3",
]


def _words(text: str) -> list[str]:
    import shlex

    return shlex.split(text) if "'" in text else text.split()


@pytest.mark.parametrize(("text", "why"), UNREAD)
def test_a_word_that_changes_nothing_is_refused_with_the_choice_that_makes_it_so(text: str, why: str) -> None:
    *_, last = _words(text)
    with pytest.raises(ConfigError) as caught:
        compose(_words(text))
    message = str(caught.value)
    assert message.startswith(f"{last} changes nothing ")
    assert why in message
    assert "\n" not in message
    compose((), shared=_words(text))


@pytest.mark.parametrize("text", READ)
def test_a_word_that_is_read_or_says_nothing_is_not_refused(text: str) -> None:
    compose(_words(text))


def test_every_declared_argument_is_one_of_the_part_and_its_condition_too() -> None:
    seen = 0
    for kind in ("strategy", "loss", "aggregator", "pace", "calibration"):
        for name in registry.names(kind):
            flags, taken = registry.flags(kind, name), registry.parameters(kind, name)
            for argument, (setting, values) in (flags.get("read_with", {}) | flags.get("unread_with", {})).items():
                seen += 1
                assert {argument, setting} <= taken.keys(), (kind, name, argument)
                assert isinstance(values, tuple), (kind, name, argument)
            assert flags.get("mirrors", {}).keys() <= taken.keys()
    assert seen > 25


@pytest.mark.parametrize(
    ("words", "local"),
    [
        ("aggregator.name=fednova local.momentum=0.9", "local.momentum=0.9"),
        ("aggregator=fednova local.momentum=0.9 aggregator.momentum=0", "local.momentum=0.9"),
        ("aggregator=fednova aggregator.optimizer=sgd local.optimizer=adam", "local.optimizer=adam"),
        ("aggregator=qfedavg aggregator.client_learning_rate=1 local.lr=0.1", "local.lr=0.1"),
    ],
)
def test_an_aggregator_that_computes_with_other_local_settings_is_refused(words: str, local: str) -> None:
    with pytest.raises(ConfigError, match=local):
        validate(compose(words.split()))


def test_an_aggregator_takes_the_local_settings_over() -> None:
    assert validate(compose(["aggregator=fednova", "local.momentum=0.9"])).aggregator["momentum"] == 0.9
    assert validate(compose(["aggregator=qfedavg", "local.lr=0.1"])).aggregator["client_learning_rate"] == 0.1


def test_an_epsilon_is_not_stated_of_updates_that_are_not_there() -> None:
    for words in ("privacy.clip=1", "privacy.clip=1 privacy.noise=1 aggregation_weight=uniform"):
        with pytest.raises(ConfigError, match="trains no client, so it protects nothing"):
            validate(compose((), shared=[*ONE.split(), *words.split()]))
    with pytest.raises(ConfigError, match="sums of features are beside it"):
        launch_in("unused", "engine=inline", "strategy=oneround", "strategy.oneround.use=post", "privacy.clip=1")


def _study(**given: object) -> Study:
    return Study.model_validate({"name": "s", "seeds": 1, "references": False, **given})


def test_a_study_may_say_for_all_rows_what_some_read_and_not_what_none_reads() -> None:
    rows = {"ce": [], "bs": ["loss=balanced_softmax"]}
    plan(_study(base=["prior.weighting=effective"], rows=rows))
    with pytest.raises(ConfigError, match=r"^prior.epsilon=2 changes nothing"):
        plan(_study(base=["prior.epsilon=2"], rows=rows))
    with pytest.raises(ConfigError, match=r"^setting 'b': prior.epsilon=2 changes nothing"):
        plan(_study(settings={"a": [], "b": ["prior.epsilon=2"]}, rows=rows))
    with pytest.raises(ConfigError, match=r"^row 'two' .*prior.weighting=effective changes nothing"):
        plan(_study(rows={**rows, "two": ["prior.weighting=effective"]}))


def test_a_study_may_say_an_argument_of_an_objective_that_one_row_replaces() -> None:
    base = ["aggregator=moon", "aggregator.mu=3"]
    plan(_study(base=base, rows={"moon": [], "prox": ["aggregator.objectives=[]"]}))
    with pytest.raises(ConfigError, match=r"^aggregator.mu=3 changes nothing with aggregator.objectives"):
        plan(_study(base=[*base, "aggregator.objectives=[]"], rows={"a": [], "b": ["loss=focal"]}))
    with pytest.raises(ConfigError, match=r"^row 'prox' .*aggregator.mu=3 changes nothing with aggregator.objectives"):
        plan(_study(base=base[:1], rows={"moon": [], "prox": ["aggregator.objectives=[]", "aggregator.mu=3"]}))


def test_default_references_need_not_read_what_nobody_said_for_them() -> None:
    rows = {"fedlc": ["loss=fedlc"]}
    plan(_study(base=["aggregator=krum"], rows=rows, references=["fedavg", "uniform", "uniform+la_post"]))
    _, tasks = plan(_study(base=["privacy.clip=1"], rows=rows, references=["fedavg", "ncm", "lda"]))
    configs = [from_json(task.config) for task in tasks]
    assert {"oneround" in config.strategy: config.privacy.clip for config in configs} == {True: None, False: 1.0}
    tuned = _study(base=["aggregator=krum"], rows=rows, references=["uniform"], tune={"grid": {"local.lr": [0.1, 0.2]}})
    check_tuning(tuned, ())
    noisy = ["privacy.clip=1", "privacy.noise=1", "aggregation_weight=uniform"]
    with pytest.raises(ConfigError, match=r"^row 'ncm' .*privacy.noise=1 is of updates, and this reference sends sums"):
        plan(_study(base=noisy, rows=rows, references=["fedavg", "ncm"]))
    with pytest.raises(ConfigError, match=r"^row 'mine' .*trains no client, so it protects nothing"):
        plan(_study(base=["privacy.clip=1"], rows={**rows, "mine": ONE.split()}))


def test_a_grid_is_said_for_all_rows_and_a_rows_own_grid_for_it_alone() -> None:
    grid = {"local.momentum": [0.0, 0.5]}
    rows = {"fl": ["loss=fedlc"], "adam": ["local.optimizer=adam"]}
    check_tuning(_study(rows=rows, tune={"grid": grid}), ())
    with pytest.raises(ConfigError, match=r"^tune.grid in setting 'default': local.momentum=0.5 changes nothing"):
        check_tuning(_study(base=rows["adam"], rows={"fl": rows["fl"], "ce": []}, tune={"grid": grid}), ())
    own = {"words": rows["adam"], "tune": grid}
    with pytest.raises(ConfigError, match=r"^row 'adam' .*local.momentum=0.5 changes nothing"):
        check_tuning(_study(rows=rows | {"adam": own}, tune={"grid": grid}), ())


def test_a_sweep_may_say_for_all_what_some_read_and_not_vary_what_one_does_not() -> None:
    sweep_tasks(["loss=ce,balanced_softmax", "prior.weighting=effective"])
    with pytest.raises(ConfigError, match=r"^prior.weighting=effective changes nothing"):
        sweep_tasks(["loss=ce,focal", "prior.weighting=effective"])
    with pytest.raises(ConfigError, match=r"^loss=ce prior.weighting=effective: prior.weighting=effective changes"):
        sweep_tasks(["loss=ce,balanced_softmax", "prior.weighting=data,effective"])


def _numbers(folder, *words: str) -> tuple[str, str]:
    """Hash of the weights, and the rows of the result without labels, which name the words; as text NaN is NaN."""
    found = launch_in(folder, "engine=inline", "rounds=2", *words)
    rows = json.loads((found.folder / "result.json").read_text())["rows"]
    return weights_sha(found), json.dumps([{**row, "label": ""} for row in rows])


def _last_changes(folder, text: str) -> bool:
    *words, last = text.split()
    return _numbers(folder / "without", *words) != _numbers(folder / "with", *words, last)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (f"{ONE} strategy.oneround.metric=cosine", False),
        (f"{PUBLIC} strategy.public.use=only local.lr=0.01", True),
        (f"{BATCH} aggregator=krum aggregation_weight=uniform", True),
    ],
)
def test_what_the_table_says_is_what_runs_do(tmp_path, text: str, changes: bool) -> None:
    assert _last_changes(tmp_path, text) is changes


@pytest.mark.parametrize("text", REFUSED_FOR_ALL)
def test_what_no_run_can_show_is_refused_for_all(text: str) -> None:
    with pytest.raises(ConfigError):
        validate(compose((), shared=text.split()))


SHOWN = [text for text, _ in UNREAD if "aggregator.objectives" not in text and text not in REFUSED_FOR_ALL]


@pytest.mark.slow
@pytest.mark.parametrize("text", SHOWN)
def test_what_is_refused_would_have_changed_nothing(tmp_path, text: str) -> None:
    assert not _last_changes(tmp_path, text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "local.momentum=0.9",
        "loss=balanced_softmax prior.provenance=dp_sum prior.epsilon=0.05",
        "loss=balanced_softmax aggregation_weight=uniform prior.weighting=effective",
        f"{ONE} strategy.oneround.head=ncm strategy.oneround.metric=cosine",
        f"{ONE} strategy.oneround.shrinkage=0.9",
        f"{PUBLIC} strategy.public.use=head strategy.public.head_epochs=1",
        f"{PUBLIC} strategy.public.use=only loss=focal",
        f"{PUBLIC} strategy.public.use=only sampler=uniform",
        "aggregator=multikrum aggregation_weight=uniform",
        "pace=buffered aggregation_weight=uniform",
        "aggregator=moon aggregator.mu=30",
        "loss=ldam loss.drw_start=0 loss.beta=0.9",
    ],
)
def test_what_is_not_refused_changes_something(tmp_path, text: str) -> None:
    compose(text.split())
    assert _last_changes(tmp_path, text)


def test_small_runs_say_nothing_that_would_be_refused_for_all() -> None:
    compose(SMALL)
