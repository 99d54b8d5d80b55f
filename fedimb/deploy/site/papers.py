"""What a site can show of a study to an authority, in one file without a patient's value (`fedimb node papers`)."""

import json
from collections import Counter

from pydantic import Field

from fedimb import __version__
from fedimb.deploy.audit_log import AuditLog, utc_now
from fedimb.deploy.home import SITE, BudgetConfig, NodeHome, SharingConfig
from fedimb.deploy.registered_data.datasets import find_data_set
from fedimb.deploy.site.approvals import load_plan, read_decision, received_plans
from fedimb.deploy.site.ledger import Ledger
from fedimb.deploy.site.spending import spent, text
from fedimb.errors import ConfigError, FedimbError
from fedimb.schema import Strict


class SitePaper(Strict):
    """A site's paper about one study plan.

    Attributes:
        site, plan: name of the site, and hash of the plan.
        made: when (UTC); ``fedimb``: with which release.
        approval: the decision on the plan: state, by whom, when. The reason stays at the site.
        sharing, budget: the site's own policy and limits, from node.yaml.
        data: name, version (a hash) and number of rows of the data set the plan uses.
        versions: versions of the data (hashes) that runs under the plan joined with, from the ledger.
        asked: what was asked about these data over all plans, from the ledger.
        audit: lines of the audit log, its last hash, messages by type and outcome, what was withheld how often.
        incidents: incidents by phase and code; their details stay at the site.
    """

    site: str = Field(pattern=SITE)
    plan: str = Field(pattern=r"^[0-9a-f]{64}$")
    made: str
    fedimb: str
    approval: dict[str, str]
    sharing: SharingConfig
    budget: BudgetConfig
    data: dict[str, str | int]
    versions: list[str]
    asked: dict[str, int | float | None]
    audit: dict[str, int | str | dict[str, int]]
    incidents: dict[str, int]


def site_paper(home: NodeHome, plan_sha: str) -> SitePaper:
    """The paper about a plan, named by the beginning of its hash.

    Raises:
        ConfigError: no such plan, several, or one that nobody has decided on.
        FedimbError: the audit log or the ledger is damaged.
    """
    shas = [sha for sha in received_plans(home) if sha.startswith(plan_sha.removeprefix("plan-"))]
    if len(shas) != 1:
        raise ConfigError(f"'{plan_sha}' names {len(shas)} of the plans received here: fedimb node inbox lists them")
    plan, decision = load_plan(home, shas[0]), read_decision(home, shas[0])
    if decision is None:
        raise ConfigError(f"nobody has decided on plan {shas[0]} yet: fedimb node approve, or reject")
    log, ledger = AuditLog(home.file("audit.jsonl")), Ledger(home)
    if (bad := log.verify()) is not None:
        raise FedimbError(f"the audit log of {home.site} is not as it was written: {bad}; fedimb node audit --verify")
    ledger.verify()
    data = find_data_set(home, plan.tags)
    with ledger.locked():
        total = spent(ledger, data.name)
        joined = list(ledger.lines('"kind":"run"', text("plan", plan.sha)))
    facts = data.facts
    audit, incidents = _audit(log)
    return SitePaper(
        site=home.site,
        plan=plan.sha,
        made=utc_now(),
        fedimb=__version__,
        approval={"state": decision.state, "by": decision.by, "at": decision.at},
        sharing=home.config.sharing,
        budget=home.config.budget,
        data={"name": data.name, "version": data.version, "rows": int(facts["rows"])},
        versions=sorted({line["facts"]["version"] for line in joined if line["facts"]["bound"]["plan"] == plan.sha}),
        asked={
            "runs": total.runs,
            "rounds": total.rounds,
            "queries": total.queries,
            "samples": total.samples,
            "epsilon": total.epsilon(home.config.budget.delta),
        },
        audit=audit,
        incidents=incidents,
    )


def _audit(log: AuditLog) -> tuple[dict[str, int | str | dict[str, int]], dict[str, int]]:
    """What a site's log adds up to, and its incidents."""
    messages, withheld, incidents = Counter[str](), Counter[str](), Counter[str]()
    for line in log.lines():
        facts = line["facts"]
        if line["kind"] != "message":
            continue
        messages[f"{facts['type']} {facts['outcome']}"] += 1
        withheld.update(facts.get("withheld", ()))
        if "incident" in facts:
            incidents[f"{facts['type']} code {facts.get('code')}"] += 1
    head = log.head()
    about: dict[str, int | str | dict[str, int]] = {"lines": head.line, "sha": head.sha}
    return about | {"messages": dict(messages), "withheld": dict(withheld)}, dict(incidents)


def paper_text(paper: SitePaper) -> str:
    """The paper as JSON text."""
    return json.dumps(paper.model_dump(), indent=1, ensure_ascii=False) + "\n"
