"""What a plan costs at a site, as it is shown before somebody approves it."""

import pytest
from study_plans import keys_of, plan_of, run_config, sites_of

from fedimb.deploy.home import BudgetConfig
from fedimb.deploy.site.spending import beyond, planned, rows, sends_synthetic

MASKED = {
    "counts": ["prior.provenance=secure_sum"],
    "scores": ["evaluation.secure=true", "data.test={name: none}", "data.validation=0.2"],
}


@pytest.mark.parametrize("words", MASKED.values(), ids=MASKED)
def test_a_plan_with_masked_sums_costs_a_set_of_sites(words):
    plan = plan_of(run_config("clients.count=3", *words), runs=2)
    assert planned(plan).sets == 1
    shown = {name: cells for name, *cells in rows(planned(plan), BudgetConfig())}
    assert shown["sum sets"] == ["1", "1"]
    assert beyond(planned(plan) + planned(plan), BudgetConfig()) is None
    others = plan_of(plan.run_config(), sites={**sites_of(2), "another": keys_of("another")[1]})
    why = beyond(planned(plan) + planned(others), BudgetConfig())
    assert why is not None
    assert "over one set of sites" in why


def test_a_plan_without_masks_costs_none():
    plan = plan_of(run_config("clients.count=3"))
    assert planned(plan).sets == 0
    assert not sends_synthetic(plan)


def test_synthetic_rows_are_shown_though_no_plan_has_their_number():
    plan = plan_of(
        run_config("strategy=fedssg", "strategy.fedssg.source=client_generators", "strategy.fedssg.pretrain=0")
    )
    assert sends_synthetic(plan)
    (line,) = [line for line in rows(planned(plan), BudgetConfig(), planned(plan), True) if line[0] == "synthetic rows"]
    assert line == ["synthetic rows", "0", "0 and those released", "none"]
