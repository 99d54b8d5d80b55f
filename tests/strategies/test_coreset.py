"""Coreset baselines as runs: every rule at its own budget and at SCOPE's."""

import json

import numpy as np
import pytest
from small_runs import launch_in

from fedimb import registry
from fedimb.errors import ConfigError

SCOPE = ("strategy.scope.encoder={name: identity}", "strategy.scope.warmup=0", "strategy.scope.p_f=0.8")
RULES = [name for name in registry.names("coreset") if name != "full"]
LONG = ("ccs", "forgetting", "herding", "k_center", "mmd_greedy", "prototype_curator")
"""Slow tests: among the fast ones is a rule that needs the same of the clients."""


def table(result, name="coreset"):
    return json.loads((result.folder / "artifacts" / f"{name}.json").read_text())


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=pytest.mark.slow) if rule in LONG else rule for rule in RULES]
)
def test_every_rule_keeps_its_share_and_spends_the_steps_it_says(tmp_path, rule):
    result = launch_in(
        tmp_path, "engine=inline", "strategy=coreset", f"strategy.coreset.rule={{name: {rule}}}", "rounds=2",
        "strategy.coreset.warmup=1", "strategy.coreset.epochs=2", "strategy.coreset.keep=0.4",
    )  # fmt: skip
    found = table(result)
    kept, held = np.array(found["kept"]).sum(1), np.array(found["held"]).sum(1)
    assert kept.tolist() == np.ceil(0.4 * held).astype(int).tolist()
    needs = registry.build("coreset", rule).needs
    assert (found["selection_steps"] > 0) == ("history" in needs)


@pytest.mark.parametrize("rule", ["random", "el2n", "fedcs", "k_center"])
def test_around_scope_a_rule_keeps_as_many_rows_of_each_class_at_each_client(tmp_path, rule):
    words = ("engine=inline", "strategy=[coreset,scope]", "strategy.coreset.match=inner", "strategy.coreset.epochs=2")
    result = launch_in(
        tmp_path, *words, *SCOPE, f"strategy.coreset.rule={{name: {rule}}}", "rounds=1", "calibration=[none,la_post]"
    )
    assert table(result)["kept"] == table(result, "scope")["kept"]
    np.testing.assert_array_equal(result.prior_counts, np.sum(table(result)["kept"], axis=0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy=coreset", "strategy.coreset.match=inner"], r"use strategy=\[coreset,scope\]"),
        (["strategy=coreset", "strategy.coreset.rule={name: full}"], "keeps every row"),
        (["strategy=coreset", "strategy.coreset.rule={name: el2m}"], "Did you mean 'el2n'"),
        (["strategy=coreset", "strategy.coreset.warmup=3"], "uses up all rounds=3"),
        (["strategy=coreset", "strategy.coreset.keep=0"], "keep"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        launch_in(tmp_path, "engine=inline", *words)
    assert not (tmp_path / "runs").exists()
