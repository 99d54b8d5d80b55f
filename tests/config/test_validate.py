import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.config.catalogue import Catalogue
from fedimb.config.compose import compose
from fedimb.config.validate import GIVEN, validate
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig

# (overrides, the one line)
REFUSED = [
    (["seed=true"], "seed=True: expected an integer"),
    (["seed='3'"], "seed='3': expected an integer"),
    (["seed=-1"], "seed=-1: expected at least 0"),
    (["rounds=3.0"], "rounds=3.0: expected an integer"),
    (["rounds=0"], "rounds=0: expected at least 1"),
    (["clients.participation=0"], "clients.participation=0: expected more than 0.0"),
    (["clients.participation=1.5"], "clients.participation=1.5: expected at most 1.0"),
    (["clients.dropout=1"], "clients.dropout=1: expected less than 1.0"),
    (["clients.deadline_s=soon"], "clients.deadline_s='soon': expected a number"),
    (["local.lr=nan"], "local.lr=nan: expected a finite number"),
    (["aggregator.objectives=[{name: toypull, mu: nan}]"], "aggregator.objectives.0.mu=nan: expected a finite number"),
    (["local.lr=true"], "local.lr=True: expected a number"),
    (["clients=3"], "clients=3: expected a mapping of settings; set them one by one: key.setting=value"),
    (
        ["local.optimizer=adm"],
        "local.optimizer='adm': not a valid name. Did you mean 'adam'? Valid: sgd, adam.",
    ),
    (
        ["aggregation_weight=zzz"],
        "aggregation_weight='zzz': not a valid name. Valid: auto, original, real, uniform, view.",
    ),
    (["name=3"], "name=3: expected text (quote a number: key=\"'3'\")"),
    (["study=a/b"], "study='a/b': expected letters, digits, spaces and _ . - only, beginning with a letter or digit"),
    (["output_dir="], "output_dir='': expected non-empty text"),
    (["loss.gama=2"], "loss 'toy_plain' has no argument 'gama'. Did you mean 'gamma'?"),
    (["loss.gamma='2'"], "loss 'toy_plain': gamma='2': input should be a valid number"),
    (["loss.gamma=true"], "loss 'toy_plain': gamma=True: input should be a valid number"),
    (["loss.reduction=men"], "loss 'toy_plain': reduction='men': input should be 'mean' or 'sum'"),
    (["model.n_classes=3"], "model 'toynet': 'n_classes' is passed by fedimb itself; remove it"),
    (["model.width=1.5"], "model 'toynet': width=1.5: input should be a valid integer"),
    (["model.name=toynt"], "no model 'toynt'. Did you mean 'toynet'?"),
    (["sampler.x=1"], "sampler 'toyorder' has no argument 'x'. It takes none."),
    (
        ["strategy=toy_a", "strategy.toy_a.warmup=x"],
        "strategy 'toy_a': warmup='x': input should be a valid integer",
    ),
    (["aggregator.objectives=3"], "aggregator.objectives=3: expected a list of names, or of mappings with a name"),
    (["aggregator.objectives=[{name: toypul}]"], "no objective 'toypul'. Did you mean 'toypull'?"),
    (["aggregator.objectives=[{name: toypull}]"], "objective 'toypull' needs mu: give mu=..."),
    (["data.source.rows=3"], "source 'digits' has no argument 'rows'. It takes none."),
    (
        ["strategy=toy_flat"],
        "strategy={'warmup': 2}: expected arguments for 'warmup', a mapping "
        "(its YAML starts with '# @package <group>.<name>')",
    ),
    (
        ["loss=toy_shift", "calibration=[none,toy_post]"],
        "refused combination: double correction: loss 'toy_shift' and calibration 'toy_post' both shift the "
        "logits by the class prior; use one of them",
    ),
    (
        ["loss=toy_shift", "prior.provenance=none"],
        "refused combination: loss 'toy_shift' needs class counts, but prior.provenance is none; "
        "set prior.provenance=clear_sum (or local, oracle)",
    ),
    (
        ["strategy=[toy_b,toy_a]", "aggregator=toymedian"],
        "refused combination: strategy 'toy_b' works on the merged update, but aggregator 'toymedian' needs "
        "each client's update; use a linear aggregator such as fedavg",
    ),
    (
        ["strategy=[toy_a,toy_c]"],
        "refused combination: strategy 'toy_a' and strategy 'toy_c' both repeat in cycles; at most one may",
    ),
]
TOY_RUN = ["model=toynet", "loss=toy_plain", "sampler=toyorder", "aggregator=toymean", "strategy=toy_b"]


@pytest.mark.parametrize(("words", "line"), REFUSED)
def test_a_wrong_configuration_is_one_line(words: list[str], line: str, toys: list[Path]) -> None:
    chosen = {word.split("=")[0] for word in words}
    raw = compose([*(w for w in TOY_RUN if w.split("=")[0] not in chosen), *words], toys)
    with pytest.raises(ConfigError) as caught:
        validate(raw)
    assert str(caught.value) == line
    assert caught.value.exit_code == 2


def test_arguments_take_the_types_of_the_signature(toys: list[Path]) -> None:
    config = validate(compose([*TOY_RUN, "loss.gamma=2", "strategy=[toy_a,toy_b]"], toys))
    assert type(config.loss["gamma"]) is float
    assert config.aggregator == {"name": "toymean", "objectives": [{"name": "toypull", "mu": 0.4}]}
    assert list(config.strategy) == ["toy_a", "toy_b"]
    assert config.model["encoder"] is None


def test_a_part_without_arguments_may_be_null(toys: list[Path]) -> None:
    assert validate(compose([*TOY_RUN, "strategy.toy_b=null"], toys)).strategy == {"toy_b": {}}


def test_a_method_without_a_client_half_is_refused(toys: list[Path]) -> None:
    registry.register("strategy", "toy_half")(type("ToyHalf", (), {}))
    raw = compose(TOY_RUN, toys) | {"strategy": {"toy_half": {}}}
    with pytest.raises(ConfigError, match=r"^no client 'toy_half'"):
        validate(raw)


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    return compose([])


def test_a_validated_configuration_is_read_only(default: dict[str, Any]) -> None:
    config = validate(default)
    with pytest.raises(ValueError, match="frozen"):
        config.rounds = 3  # type: ignore[misc]


OPTIONAL = ("privacy", "run", "attack", "resampler", "pace", "explanation", "server_schedule")


@pytest.mark.parametrize("key", [key for key in RunConfig.model_fields if key not in OPTIONAL])
def test_every_setting_is_required(default: dict[str, Any], key: str) -> None:
    raw = {k: v for k, v in default.items() if k != key}
    with pytest.raises(ConfigError, match=f"^'{key}' is missing: give it a value with {key}=...$"):
        validate(raw)


def test_an_extra_key_is_refused(default: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^no setting 'clients\.cout'\. Did you mean 'count'\?$"):
        validate(default | {"clients": default["clients"] | {"cout": 3}})
    with pytest.raises(ConfigError, match=r"^no setting 'sed'\. Did you mean 'seed'\?$"):
        validate(default | {"sed": 3})


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_is_accepted_or_one_line(data: st.DataObject) -> None:
    raw = copy.deepcopy(_DEFAULT)
    value = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
    )
    top = data.draw(st.sampled_from(sorted(set(raw) - {"data"})))
    if isinstance(raw[top], dict) and data.draw(st.booleans()):
        raw[top][data.draw(st.sampled_from(sorted(raw[top])))] = value
    else:
        raw[top] = value
    answer = ""
    try:
        validate(raw)
    except ConfigError as error:
        answer = str(error)
    assert "\n" not in answer


_DEFAULT = compose([])


NEEDS = (
    ("strategy", "fednh", "model.head=prototype"),
    ("strategy", "class_incremental", "partition=class_incremental"),
    ("strategy", "climb", "aggregator=fedavg"),
    ("strategy", "fediic", "model.head=projected", "local.augmentation=[{name: noise}]"),
    ("strategy", "fedyoyo", "loss=dla"),
    ("strategy", "mahalanobis", "model.head=gated"),
    ("strategy", "two_stage", "loss=ce"),
    ("strategy", "fedmd", "clients.private=['*']"),
    ("strategy", "fedproto", "clients.private=['*']"),
    ("strategy", "fedrep", "clients.private=[head]"),
    ("strategy", "greedy_ensemble", "clients.private=['*']"),
    ("strategy", "herocrystal", "clients.private=[head]"),
    ("aggregator", "balancefl", "loss=batch_restricted_ce"),
    ("aggregator", "fedgrab", "loss=bce"),
    ("loss", "dm_simplex", "model.head=simplex"),
    ("partition", "virtual", "strategy=plain"),
)
"""Options that work only with another one."""


def test_every_shipped_option_validates() -> None:
    """One option of every group per composition: composing takes a quarter of a second whatever is in it.

    Data sets of one kind (tables, arrays) differ in their settings alone: tests/data/test_corpus.py checks those.
    """
    kinds = ("data", "model", "partition", "aggregator", "loss", "sampler", "strategy")
    options = {kind: Catalogue().options(kind) for kind in kinds}
    alike = ("abalone", "dermatology", "ecoli", "glass", "hcv", "kr_vs_k", "page_blocks", "thyroid", "yeast", "mnist")
    options["data"] = [name for name in options["data"] if name not in (*alike, "fashion_mnist", "yeast_functions")]
    assert all(options.values())
    for kind, name, *needed in NEEDS:  # one by one with what they need
        options[kind].remove(name)
        assert validate(compose([f"{kind}={name}", *needed]))
    for i in range(max(map(len, options.values()))):
        picked = {kind: names[i % len(names)] for kind, names in options.items()}
        config = validate(compose((), shared=[f"{kind}={name}" for kind, name in picked.items()]))
        for kind in ("model", "partition", "aggregator", "loss", "sampler"):
            assert getattr(config, kind)["name"] == picked[kind]
        assert config.data["source"]["name"]
        assert list(config.strategy) == [picked["strategy"]]
    for name in Catalogue().options("resampler"):
        assert validate(compose([f"resampler={name}"])).resampler["name"] == name
    for name in Catalogue().options("calibration"):
        assert list(validate(compose([f"calibration={name}"])).calibration) == [name]


def test_given_names_every_buildable_kind() -> None:
    assert set(GIVEN) == set(registry.KINDS) - {"contract"}
