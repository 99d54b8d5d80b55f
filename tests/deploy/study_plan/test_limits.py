"""Rows and value ranges per site, as typed and as read from the data; on the page that people approve."""

import numpy as np
import pytest
from ill_or_well import small_words, write_table
from study_plans import plan_of, run_config

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.deploy.coordinator.drafting import describe_limits, with_deployment_defaults
from fedimb.deploy.study_plan.limits import MOST_ROWS, SiteLimits, column_ranges
from fedimb.deploy.study_plan.page import as_markdown
from fedimb.deploy.study_plan.ranges import Range
from fedimb.errors import ConfigError

SITES = ("linz", "va")


def typed(rows=(), values=()):
    return describe_limits(run_config(), SITES, rows, values, from_data=False)


def test_as_typed():
    found = typed(["400", "va=30"], ["0..120", "-1e3..1e3"])
    assert (found.rows_of("linz"), found.rows_of("va")) == (400, 30)
    assert found.ranges(2).tolist() == [[0, 120], [-1000, 1000]]
    assert found.ranges(3).tolist() == [[-1000, 1000]] * 3
    assert typed().rows_of("linz") == MOST_ROWS


@pytest.mark.parametrize(
    ("rows", "values", "text"),
    [
        (["many"], [], "--rows many: write N for every site, or SITE=N; sites are linz, va"),
        (["wels=3"], [], "--rows wels=3"),
        (["0"], [], "--rows 0"),
        (["1000000000"], [], "most_rows"),
        ([], ["120"], "--value-range 120: write the smallest and largest"),
        ([], ["5..1"], "--value-range 5..1"),
    ],
)
def test_typed_wrong(rows, values, text):
    with pytest.raises(ConfigError, match=text):
        typed(rows, values)


def test_from_the_data(tmp_path):
    files = {site: write_table(tmp_path / f"{site}.csv", n, n) for site, n in (("linz", 40), ("va", 50))}
    config = validate(compose([*small_words(files), "clients.count=2"]))
    found = describe_limits(config, SITES, ["va=60"], [], from_data=True)
    assert (found.rows_of("linz"), found.rows_of("va")) == (90, 60)
    low, high = found.ranges(4)[1]
    assert low < 6 < 14 < high < 30  # values around 10, and as much again on both sides


def test_ranges_of_columns_without_values():
    low, high = column_ranges(np.array([[1, np.nan], [3, np.nan]], np.float32))
    assert (low[0], high[0]) == (1, 3)
    assert np.isnan([low[1], high[1]]).all()


def test_the_page_says_what_a_site_may_hold_and_count_for():
    config = run_config("clients.max_weight_share=0.5")
    text = as_markdown(plan_of(config, limits=SiteLimits(most_rows=400, rows={"va": 30}, values=[[0, 120]])))
    assert "| rows at va | at most 30 |" in text
    assert "| rows at another site | at most 400 |" in text
    assert "| values of a table's columns | 0 to 120 |" in text
    assert "| at most 50%, from three sites on (with two nobody is protected) |" in text
    assert plan_of(config).sha != plan_of(config, limits=SiteLimits(most_rows=3)).sha


def test_a_deployments_default_is_half_and_never_varies():
    assert with_deployment_defaults(["rounds=3"]) == ["rounds=3", "clients.max_weight_share=0.5"]
    assert with_deployment_defaults(["clients.max_weight_share=null"]) == ["clients.max_weight_share=null"]
    with pytest.raises(ConfigError, match="changes what leaves a site"):
        plan_of(run_config(), vary={"clients.max_weight_share": Range()})
