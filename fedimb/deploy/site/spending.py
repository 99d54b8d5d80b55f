"""What has been asked about a data set so far, over all plans, runs and versions, and the site's limits on it.

Versions of a data set are one *lineage*: they have its name. A data set that shares a record with another one belongs
to the same lineage, whatever its name. Only a person at the site can start the counts again.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fedimb.contracts.base import Record
from fedimb.deploy.home import BudgetConfig, NodeHome
from fedimb.deploy.registered_data.data_version import DataVersion, record_marks
from fedimb.deploy.site.ledger import Ledger
from fedimb.deploy.study_plan.budget import epsilon_of_precision, most_precision, plan_budget
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import ConfigError, nearest
from fedimb.plain import JsonObject

ABOUT = " about "
"""In a set of `Spent.sum_sets`, between the sites and the rows, ``train`` or ``validation``, for people to read."""


@dataclass(frozen=True)
class Spent:
    """What was asked about a lineage.

    Attributes:
        runs, rounds, queries: runs joined, training rounds and other messages asked for.
        samples: synthetic rows that left.
        noiseless: rounds whose updates left without noise.
        updates, counts: summed precisions (`fedimb.deploy.study_plan.budget`) of noisy updates and noisy class counts.
        sum_sets: sets of sites that masked sums were over, with the rows that they were about.
        recovered: masked sums that were opened without a site that had been asked.
    """

    runs: int = 0
    rounds: int = 0
    queries: int = 0
    samples: int = 0
    noiseless: int = 0
    updates: float = 0.0
    counts: float = 0.0
    sum_sets: tuple[str, ...] = ()
    recovered: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        numbers = {key: value + getattr(other, key) for key, value in asdict(self).items() if key != "sum_sets"}
        return Spent(**numbers, sum_sets=tuple(sorted({*self.sum_sets, *other.sum_sets})))

    def times(self, n: int) -> "Spent":
        """This spending n times."""
        numbers = {key: value * n for key, value in asdict(self).items() if key != "sum_sets"}
        return Spent(**numbers, sum_sets=self.sum_sets)

    def since(self, before: "Spent") -> "Spent":
        """The part of this total that came after ``before``; privacy loss and sets of sites never expire."""
        late = {key: max(0, getattr(self, key) - getattr(before, key)) for key in ("rounds", "queries", "samples")}
        return replace(self, **late)

    def epsilon(self, delta: float) -> float | None:
        """Epsilon of the updates; None if some left without noise, which guarantees nothing."""
        return None if self.noiseless else epsilon_of_precision(self.updates, delta)

    @property
    def sets(self) -> int:
        """Number of different sets of sites that masked sums were over, whatever rows the sums were about.

        Validation rows are the same share of each class at every site: a sum about them without a site, and one about
        training rows with it, tell that site's rows of each class to a few rows.
        """
        return len({one.partition(ABOUT)[0] for one in self.sum_sets})

    def counts_epsilon(self, delta: float) -> float:
        """Epsilon of the noisy class counts."""
        return epsilon_of_precision(self.counts, delta)


def planned(plan: StudyPlan) -> Spent:
    """What a plan asks for if all of it is used and no site is missing from a sum.

    Synthetic rows are not in it: a plan has no number of them (`sends_synthetic`).
    """
    budget = plan_budget(plan)
    one = Spent(1, budget.rounds, budget.queries, 0, budget.noiseless, budget.updates, budget.counts)
    masked = any(record.about == "masked" for record in _declared(plan))
    return replace(one.times(budget.runs), sum_sets=(site_set(plan, range(len(plan.sites))),) if masked else ())


def sends_synthetic(plan: StudyPlan) -> bool:
    """Whether synthetic rows leave under a plan; how many is decided with each release."""
    return any(record.reveals == "synthetic" for record in _declared(plan))


def _declared(plan: StudyPlan) -> list[Record]:
    """The contracts' records that a plan lists."""
    from fedimb.config.parts import (
        contracts_of,
    )  # imports torch, which a supervisor that counts its inbox does not need
    from fedimb.privacy.egress_filter import declared_for

    contracts, listed = contracts_of(plan.run_config()), {(row.message, row.record) for row in plan.leaves}
    messages = {message for message, _ in listed}
    return [r for message in messages for r in declared_for(message, contracts) if (message, r.key) in listed]


def site_set(plan: StudyPlan, clients: Iterable[int]) -> str:
    """The set of sites a masked sum is over, by keys: an id, or a name, is another site's in another plan."""
    sites = plan.sites
    return ", ".join(sorted(f"{sites[client].name} {sites[client].fingerprint}" for client in clients))


def text(key: str, value: str) -> str:
    """A key and its value as they are in a line of the ledger, for `Ledger.lines`."""
    return f"{json.dumps(key)}:{json.dumps(value, ensure_ascii=False)}"


def lineage(ledger: Ledger, name: str) -> list[str]:
    """The data sets of one lineage: the one called ``name``, and those known to share records with it."""
    found, pairs = {name}, [line["facts"]["data_sets"] for line in ledger.lines('"kind":"lineage"')]
    while grown := {one for pair in pairs if found & set(pair) for one in pair} - found:
        found |= grown
    return sorted(found)


def spent(ledger: Ledger, name: str, budget: BudgetConfig | None = None) -> Spent:
    """What was asked about a data set's lineage; with ``budget``, in its period."""
    names = lineage(ledger, name)
    total = sum((_total(ledger, one, "") for one in names), Spent())
    if budget is None or budget.days is None:
        return total
    start = (datetime.now(UTC) - timedelta(days=budget.days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return total.since(sum((_total(ledger, one, start) for one in names), Spent()))


def _total(ledger: Ledger, name: str, before: str) -> Spent:
    """The total of one data set, of which every line about it has a copy; with ``before``, at that time.

    A line is as late as the latest one up to it: of a clock that was set back, one line in the past must not make all
    lines before it past ones.
    """
    last: JsonObject | None = None
    for line in ledger.lines(text("data", name), '"total":{'):
        if line["facts"].get("data") != name:
            continue
        late = bool(before) and line["at"] >= before
        if late and line["kind"] == "reset":
            return Spent()
        last = None if late else last or line
        if not before or line["kind"] == "reset":
            break
    if last is None:
        return Spent()
    total = last["facts"]["total"]
    return Spent(**{**total, "sum_sets": tuple(total["sum_sets"])})


def charge(ledger: Ledger, kind: str, name: str, facts: dict[str, Any], more: Spent, durable: bool = True) -> None:
    """Append a line that adds ``more`` to what was asked about a data set."""
    total = asdict(_total(ledger, name, "") + more)
    ledger.append(kind, {**facts, "data": name, "total": total}, durable)


def beyond(after: Spent, budget: BudgetConfig) -> str | None:
    """The first limit of the site that ``after`` exceeds, in words; None if there is none.

    Args:
        after: what would be spent, in the budget's period.
    """
    period = "" if budget.days is None else f" in {budget.days} days"
    for key, what in (("rounds", "training rounds"), ("queries", "queries"), ("samples", "synthetic rows")):
        most = getattr(budget, key)
        if most is not None and getattr(after, key) > most:
            return f"{most} {what}{period} about these data (budget.{key} in its node.yaml)"
    if after.sets > budget.sum_sets:
        sets = "one set of sites" if budget.sum_sets == 1 else f"{budget.sum_sets} sets of sites"
        return (
            f"masked sums over {sets} about these data, as sums over two sets can be subtracted (budget.sum_sets in "
            "its node.yaml)"
        )
    if budget.epsilon is None:
        return None
    if after.noiseless:
        return f"epsilon {budget.epsilon:g} (budget.epsilon in its node.yaml), which updates without noise exceed"
    limit = most_precision(budget.epsilon, budget.delta) * (1 + 1e-9)
    if max(after.updates, after.counts) > limit:
        return (
            f"epsilon {budget.epsilon:g} at delta {budget.delta:g} about these data (budget.epsilon in its node.yaml)"
        )
    return None


def join_lineages(ledger: Ledger, home: NodeHome, version: DataVersion) -> None:
    """Note which other data sets share a record with a version that is used for the first time."""
    if any(line["facts"]["version"] == version.version for line in ledger.lines(text("version", version.version))):
        return
    own = record_marks(version.folder)
    known = set(lineage(ledger, version.name))
    for folder in sorted(home.file("data", "sets").glob("*/*/")):
        other = folder.parent.name
        if other not in known and own & record_marks(folder):
            ledger.append("lineage", {"data_sets": sorted([version.name, other])})
            known = set(lineage(ledger, version.name))


def ledger_names(ledger: Ledger) -> list[str]:
    """Data sets that anything was asked about."""
    return sorted({line["facts"]["data"] for line in ledger.lines('"total":{')})


def reset(home: NodeHome, name: str, by: str, reason: str) -> Spent:
    """Start the counts of a lineage again, by decision of a person. Returns what had been counted.

    Raises:
        ConfigError: nothing was asked about such a data set.
    """
    ledger = Ledger(home)
    with ledger.locked():
        known = ledger_names(ledger)
        if name not in known:
            raise ConfigError(f"nothing was asked about a data set '{name}' so far.{nearest(name, known)}")
        before, names = spent(ledger, name), lineage(ledger, name)
        for one in names:
            ledger.append("reset", {"data": one, "total": asdict(Spent()), "by": by, "reason": reason})
        ledger.log("reset", {"data_sets": names, "counted": asdict(before), "by": by, "reason": reason})
    return before


def rows(now: Spent, budget: BudgetConfig, then: Spent | None = None, synthetic: bool = False) -> list[list[str]]:
    """A table of what was spent, and of what is spent after a plan; for people.

    Args:
        synthetic: the plan sends synthetic rows (`sends_synthetic`).
    """

    def cells(one: Spent) -> list[str]:
        epsilon = one.epsilon(budget.delta)
        updates = f"none guaranteed ({one.noiseless} rounds without noise)" if epsilon is None else f"{epsilon:.3g}"
        counts = f"{one.counts_epsilon(budget.delta):.3g}"
        numbers = map(str, (one.runs, one.rounds, one.queries, one.samples))
        return [*numbers, updates, counts, str(one.sets), str(one.recovered)]

    names = ["runs", "rounds", "queries", "synthetic rows", "epsilon of updates", "epsilon of counts", "sum sets"]
    names.append("sums without a site")
    most: Iterable[object] = (None, budget.rounds, budget.queries, budget.samples, budget.epsilon, budget.epsilon)
    limits = ["none" if one is None else f"{one:g}" for one in most] + [str(budget.sum_sets), "none"]
    after = [] if then is None else [cells(then)]
    if then is not None and synthetic:
        after[0][names.index("synthetic rows")] += " and those released"
    columns = [cells(now), *after, limits]
    return [[name, *(column[i] for column in columns)] for i, name in enumerate(names)]
