"""How much a plan asks of a site: counted from contracts and settings, and what it costs."""

import pytest
from study_plans import plan_of, run_config

from fedimb import registry
from fedimb.deploy.study_plan.budget import default_runs, most_round, plan_budget
from fedimb.deploy.study_plan.outbound_records import message_counts
from fedimb.deploy.study_plan.page import as_markdown
from fedimb.deploy.study_plan.plan import read_plan
from fedimb.deploy.study_plan.ranges import Range, check_vary
from fedimb.errors import ConfigError
from fedimb.privacy.ledger import Ledger as PrivacyLedger

CYCLES = ("strategy.fairfal.cycles=2", "rounds=4")
ASKED = {
    ("rounds=5",): {"train": 5, "query.join_site": 1},
    ("prior.provenance=clear_sum",): {"query.class_counts": 1},
    ("prior.provenance=dp_sum",): {"query.noisy_counts": 1},
    ("data.test={name: none}", "data.validation=0.2"): {"query.scored": 1},
    ("strategy=scope",): {"query.scope_prototypes": 1, "query.scope_profile": 1, "query.scope_prune": 1},
    ("strategy=fairfal", *CYCLES): {"query.fairfal_start": 1, "query.fairfal_choose": 2, "query.fairfal_collect": 2},
    ("strategy=[fairfal,scope]", *CYCLES, "strategy.scope.warmup=1"): {"query.scope_prune": 2, "train": 4},
    ("strategy=fedssg", "strategy.fedssg.source=fed_diffusion", "strategy.fedssg.rounds=7"): {"query.fedssg_teach": 7},
}


@pytest.mark.parametrize("words", ASKED, ids=lambda words: words[0])
def test_what_a_method_asks_is_what_its_contract_says(words):
    config = run_config(*words)
    asked = message_counts(config, config.rounds)
    assert ASKED[words].items() <= asked.items()
    assert all(count >= 1 for count in asked.values())


def test_every_contract_says_how_often_it_asks():
    for name in ("platform", "active", "coreset", "fairfal", "fedssg", "public", "scope"):
        contract = registry.build("contract", name)
        assert contract.most.keys() == contract.queries.keys(), name
        if name == "platform":
            continue
        (args,) = run_config(f"strategy={name}").strategy.values()
        settings = {contract.repeats, *(most for most in contract.most.values() if isinstance(most, str))} - {""}
        assert settings <= args.keys(), name


def test_a_method_that_replaces_the_model_has_more_round_numbers():
    assert most_round(run_config("strategy=scope", "rounds=4")) == 4
    assert most_round(run_config("strategy=public", "strategy.public.use=ccvr", "rounds=4")) == 5


def test_what_says_how_often_may_vary_within_bounds_only():
    config = run_config("strategy=fairfal", *CYCLES)
    with pytest.raises(ConfigError, match=r"--vary strategy.fairfal.cycles: give an upper bound, as in strategy"):
        check_vary(config, {"strategy.fairfal.cycles": Range()})
    vary = {"strategy.fairfal.cycles": Range(among=[2, 4])}
    assert message_counts(config, 4, vary)["query.fairfal_choose"] == 4
    row = next(row for row in plan_of(config, vary=vary).leaves if row.message == "query.fairfal_choose")
    assert row.often == "once in each labelling cycle (at most 4 in a run)"


@pytest.mark.parametrize(
    ("vary", "runs"),
    [
        ({}, 1),
        ({"seed": Range()}, 1),
        ({"seed": Range(low=0, high=4), "rounds": Range(low=1, high=50)}, 5),
        ({"seed": Range(among=[1, 2]), "local.lr": Range(among=[0.1, 0.2, 0.3])}, 6),
    ],
)
def test_a_plan_that_names_no_number_of_runs_covers_what_it_lists(vary, runs):
    assert default_runs(vary) == runs


def test_the_page_says_what_all_of_the_plan_costs():
    config = run_config(
        "rounds=5", "privacy.clip=1", "privacy.noise=4", "aggregation_weight=uniform", "clients.count=3"
    )
    plan = plan_of(config, vary={"rounds": Range(low=1, high=8)}, runs=3)
    budget = plan_budget(plan)
    assert (budget.runs, budget.rounds, budget.noiseless) == (3, 8, 0)
    whole, balance = PrivacyLedger(config.privacy, 3, 1.0), {}
    epsilons = []
    for _ in range(3):
        for _ in range(8):
            whole.add(balance, [0, 1, 2], 3)
        epsilons.append(whole.stated(balance)["epsilon_server"])
    page = as_markdown(plan)
    assert "| rounds of training | 8 | 24 |" in page
    assert f"| {epsilons[0]:.3g} | {epsilons[2]:.3g} |" in page
    assert "not bounded: no noise is added" in as_markdown(plan_of(run_config()))


def test_a_plan_without_a_number_of_runs_is_refused_in_words():
    text = plan_of(run_config()).to_json().replace('"runs": 1,', "")
    with pytest.raises(
        ConfigError, match="is of an earlier release, without the sites' keys and the number of runs: make a new plan"
    ):
        read_plan(text)
