import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.config.compose import compose
from fedimb.config.load import config_sha, flatten, from_json, row_label, to_json
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.schema import RunConfig

TOYS = ["loss=toy_plain", "strategy=[toy_b,toy_a]"]
DEFAULT = validate(compose([]))


def test_text_and_back_keeps_everything_and_the_order_of_methods(toys: list[Path]) -> None:
    config = validate(compose([*TOYS, "calibration=[toy_post,none]", "name='é, \"quoted\"'"], toys))
    again = from_json(to_json(config))
    assert again == config
    assert to_json(again) == to_json(config)
    assert list(again.strategy) == ["toy_b", "toy_a"]
    assert list(again.calibration) == ["toy_post", "none"]


def test_a_configuration_of_0_1_with_terms_is_read_and_keeps_its_hash() -> None:
    config = validate(compose(["aggregator=fedprox"]))
    old = json.loads(to_json(config))
    old["aggregator"]["terms"] = old["aggregator"].pop("objectives")
    assert from_json(json.dumps(old)) == config
    assert config_sha(config) == "2dc9cbd68f31c6f0ccfd7c4f0dbe480a77ef49e4cd04d591fd93ea84b824e8ff"  # of 0.1.0
    old["aggregator"]["objectives"] = []
    with pytest.raises(ConfigError, match=r"^aggregator=.*: expected objectives alone \('terms' is its old name\)$"):
        validate(old)


def test_text_is_canonical() -> None:
    tree = json.loads(to_json(DEFAULT))
    assert list(tree) == sorted(tree)
    shuffled = {key: tree[key] for key in reversed(tree)}
    assert to_json(validate(shuffled)) == to_json(DEFAULT)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "the configuration is not JSON: .*; send what to_json wrote"),
        ("[1]", "the configuration is JSON but holds a list: send what to_json wrote"),
        ("{}", "'data' is missing: give it a value with data=..."),
    ],
)
def test_bad_text_is_one_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}$"):
        from_json(text)


def test_a_node_needs_no_hydra() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['hydra', 'omegaconf', 'yaml', 'mlflow', 'ray']))\n"
        "from fedimb.config.load import config_sha, from_json\n"
        "print(config_sha(from_json(sys.stdin.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=to_json(DEFAULT),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (config_sha(DEFAULT), "")


SAME = [
    "engine=inline",
    "tracking=none",
    "output_dir=x",
    "name=x",
    "study=x",
    "checkpoint.every=3",
    "local.momentum=0",
    "data.split={group: null, clients: false}",
]
OTHER = [
    "seed=1",
    "rounds=3",
    "local.lr=0.1",
    "loss=balanced_softmax",
    "partition.alpha=0.1",
    "calibration=tau",
    "data.split.group=duplicates",
]


@pytest.mark.parametrize("word", SAME)
def test_the_hash_ignores_what_does_not_change_numbers(word: str) -> None:
    assert config_sha(validate(compose([word]))) == config_sha(DEFAULT)


def test_the_hash_sees_what_does() -> None:
    found = {config_sha(validate(compose([word]))) for word in OTHER} | {config_sha(DEFAULT)}
    assert len(found) == len(OTHER) + 1


def test_the_hash_sees_the_order_of_methods(toys: list[Path]) -> None:
    one, two = (validate(compose([f"strategy=[{order}]"], toys)) for order in ("toy_a,toy_b", "toy_b,toy_a"))
    assert config_sha(one) != config_sha(two)


@settings(max_examples=30, deadline=None)
@given(n_max=st.integers(1, 10**6))
def test_2_and_2_0_are_one_value(n_max: int) -> None:
    one, two = (
        DEFAULT.model_copy(update={"data": DEFAULT.data | {"imbalance_factor": v}}) for v in (n_max, float(n_max))
    )
    assert config_sha(one) == config_sha(two)


def test_parameters_are_scalars() -> None:
    flat = flatten(DEFAULT)
    assert all(isinstance(value, str | int | float | bool) for value in flat.values())
    assert flat["local.lr"] == 0.4
    assert flat["model.hidden"] == "[48]"
    assert flat["clients.deadline_s"] == "null"
    assert flat["strategy.plain"] == "{}"
    assert flat["data.source.name"] == "digits"


def _changed(**parts: Any) -> RunConfig:
    return DEFAULT.model_copy(update=parts)


@pytest.mark.parametrize(
    ("parts", "calibration", "label"),
    [
        ({}, "none", "fedavg"),
        ({}, "la_post", "la_post"),
        ({"aggregator": {"name": "fedprox"}}, "none", "fedprox"),
        ({"aggregation_weight": "uniform"}, "none", "uniform"),
        ({"aggregation_weight": "view"}, "tau", "weights_view+tau"),
        ({"strategy": {"scope": {}, "plain": {}, "fedssg": {}}}, "none", "scope+fedssg"),
        (
            {
                "strategy": {"scope": {}},
                "aggregator": {"name": "fedadam"},
                "aggregation_weight": "real",
                "loss": {"name": "focal"},
                "sampler": {"name": "balanced"},
            },
            "la_post",
            "scope+fedadam+weights_real+focal+balanced+la_post",
        ),
        ({"name": "mine", "loss": {"name": "focal"}}, "none", "mine"),
        ({"name": "mine", "loss": {"name": "focal"}}, "tau", "mine+tau"),
    ],
)
def test_row_label(parts: dict[str, Any], calibration: str, label: str) -> None:
    assert row_label(_changed(**parts), calibration) == label
