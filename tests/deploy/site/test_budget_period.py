"""What was asked in the period of a site's budget, whatever its clock does."""

from datetime import UTC, datetime, timedelta

import pytest
from study_plans import node_home

from fedimb.deploy.home import BudgetConfig
from fedimb.deploy.site import ledger as ledgers
from fedimb.deploy.site.ledger import Ledger
from fedimb.deploy.site.spending import Spent, charge, spent


def at(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("times", "counted"),
    [
        ((-90, -60, -20, -10), 2),
        ((-90, -20, -9000, -10), 3),  # the clock was set back for one message
        ((-90, -20, -10, -9000), 3),
        ((-90, -60, -9000, -10), 1),
        ((-90, 400, -10, -5), 3),  # it was ahead once
    ],
)
def test_a_clock_that_was_set_back_gives_no_new_budget(tmp_path, monkeypatch, times, counted):
    ledger = Ledger(node_home(tmp_path / "node"))
    for days in times:
        monkeypatch.setattr(ledgers, "utc_now", lambda days=days: at(days))
        with ledger.locked():
            charge(ledger, "asked", "heads", {}, Spent(rounds=1))
    with ledger.locked():
        assert spent(ledger, "heads").rounds == 4
        assert spent(ledger, "heads", BudgetConfig(days=30)).rounds == counted
        ledger.append("reset", {"data": "heads", "total": vars(Spent())})
    with ledger.locked():
        assert spent(ledger, "heads", BudgetConfig(days=30)).rounds == 0
