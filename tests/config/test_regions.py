"""What regions cannot carry is refused before any work, by what the parts declare."""

import pytest

from fedimb import registry
from fedimb.config.compose import compose
from fedimb.config.load import config_sha
from fedimb.config.regions import at_sites, first_site
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.training.objectives.base import LocalObjective

TREE = ("clients.count=4", "clients.regions=[2,2]", "clients.min_members=2")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["clients.count=5"], r"these are 4 sites, but clients.count=5 .* set clients.count=4"),
        (["clients.min_members=3"], r"a region of 2 sites never has the 3 .* set clients.min_members=2"),
        (["clients.regions=[3,1]"], r"expected at least 2"),
        (["aggregator=krum"], "aggregator 'krum' needs updates, .* use aggregator="),
        (["aggregator=fedexp"], "aggregator 'fedexp' needs updates"),
        (["aggregator=scaffold"], "aggregator 'scaffold' needs updates"),
        (["aggregator=moon"], "objective 'moon' keeps a state at each site"),
        (["strategy=[scope,plain]"], "strategy 'scope' needs updates, figures or states of single sites"),
        (["clients.max_weight_share=0.5"], "set clients.max_weight_share=null"),
        (["clients.max_update_ratio=3"], "set clients.max_update_ratio=null"),
        (["loss=balanced_softmax", "prior.weighting=effective"], "set prior.weighting=data"),
        (["loss=balanced_softmax", "prior.provenance=secure_sum"], "set prior.provenance=clear_sum"),
        (["evaluation.temperature=true", "data.validation=0.2"], "evaluation.temperature=true masks"),
        (["clients.private=[head]"], "clients.private makes models differ by site"),
        (["attack=sign_flip"], "use attack=none"),
        (["pace=oversample"], "use pace=sync"),
        (["partition=class_incremental"], "partition=class_incremental shows each site the rows of one phase"),
    ],
)
def test_refused(words, match):
    with pytest.raises(ConfigError, match=match):
        validate(compose([*TREE, *words]))


def test_a_run_without_regions_keeps_its_hash_and_one_with_them_has_another():
    plain = validate(compose(["clients.count=4"]))
    assert config_sha(validate(compose(["clients.count=4"], shared=["clients.min_members=2"]))) == config_sha(plain)
    tree = validate(compose([*TREE]))
    assert config_sha(tree) != config_sha(plain)
    assert config_sha(at_sites(tree)) == config_sha(plain)


def test_ids_of_sites_are_those_of_one_federation():
    assert [first_site([2, 3, 2], region) for region in range(3)] == [0, 2, 5]


@pytest.mark.parametrize("name", registry.names("objective"))
def test_an_objective_that_keeps_something_declares_it(name):
    """`keep` is the only way to write into a client's state."""
    entry = registry.get("objective", name)
    keeps = entry.factory.keep is not LocalObjective.keep
    assert bool(entry.flags.get("keeps_state")) == keeps


@pytest.mark.parametrize("kind", ["aggregator", "strategy"])
def test_parts_of_sums_declare_nothing_else(kind):
    fitting = [name for name in registry.names(kind) if registry.flags(kind, name).get("from_sum")]
    assert fitting
    for name in fitting:
        flags = registry.flags(kind, name)
        assert kind == "strategy" or flags.get("linear")
        assert not flags.get("needs_individual_updates")
        assert not flags.get("client_scalars")
        if kind == "strategy":
            contract = registry.get("contract", name).factory
            assert not contract.train
            assert not contract.queries
