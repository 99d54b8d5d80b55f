"""A study plan on one page, for a data-protection officer: Markdown and HTML, without external resources.

The coordinator's text is shown as plain text: it is escaped in HTML and in Markdown, and characters that cannot be seen
are shown as their numbers.
"""

import html
import re
import unicodedata
from collections.abc import Sequence

from fedimb.deploy.study_plan.budget import PlanBudget, epsilon_of_precision, plan_budget
from fedimb.deploy.study_plan.outbound_records import OutboundRecord
from fedimb.deploy.study_plan.plan import StudyPlan

_SAYS = {
    "model": "numbers of the trained model; patients' values can in part be inferred from them",
    "aggregate": "sums or means over patients",
    "individual": "about one patient or row",
    "operational": "steps, seconds, versions",
}
_MARKUP = re.compile(r"[\\`*\[\]<>#|!~&$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown may read as markup: all but an underscore within a word, as in the names of settings."""
_STYLE = """\
body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;width:100%;font-size:13px}td,th{border:1px solid #bbb;padding:.3rem .5rem;\
text-align:left;vertical-align:top}th{background:#eee}h2{margin-top:1.6rem}code{overflow-wrap:anywhere}
@media print{body{margin:0;font-size:11px}table{font-size:9px}}"""

Section = tuple[str, str, list[list[str]]]
"""Heading, sentence below it, and table, whose first row names the columns. Sentence and table may be empty."""


def format_bytes(count: int | None) -> str:
    """Format a size for people, as in ``20.1 MB``."""
    if count is None:
        return "not limited"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _visible(text: str) -> str:
    """Text in which every character that cannot be seen (line breaks, changes of direction) is shown as its number."""
    return "".join(one if one.isprintable() or unicodedata.category(one) == "Zs" else ascii(one)[1:-1] for one in text)


def _sections(plan: StudyPlan) -> list[Section]:
    about = [
        ["", ""],
        ["Purpose", plan.purpose],
        ["Contacts", "; ".join(plan.contacts)],
        ["Coordinator's deployment", plan.deployment],
        ["Coordinator's key", plan.coordinator_fingerprint],
        ["Made", plan.created],
        ["Expires", f"{plan.expires}; nothing runs under this plan afterwards"],
        ["Data", f"the registered data set with the tags {', '.join(plan.tags)}"],
        ["Classes", ", ".join(plan.classes)],
        ["Minority classes", ", ".join(plan.minority) or "none"],
        ["Software", f"fedimb {plan.release.fedimb}, bundle {plan.release.bundle}"],
        ["Configuration", f"sha256 {plan.config_sha}"],
        ["This plan", f"sha256 {plan.sha}"],
    ]
    sites = [["client", "site", "fingerprint of its key"]]
    sites += [[str(client), site.name, site.fingerprint] for client, site in enumerate(plan.sites, plan.first_client)]
    budget = plan_budget(plan)
    most = [
        ["", "in one run", f"in all {budget.runs} runs" if budget.runs > 1 else "in all (1 run)"],
        ["rounds of training", str(budget.rounds), str(budget.rounds * budget.runs)],
        ["other messages", str(budget.queries), str(budget.queries * budget.runs)],
        ["epsilon of a site's updates, as the coordinator sees them", *_epsilons(budget, plan, budget.updates)],
    ]
    if budget.counts:
        most.append(["epsilon of noisy class counts, if masks fail", *_epsilons(budget, plan, budget.counts)])
    vary = [["setting", "may be"], *([key, str(given)] for key, given in plan.vary.items())]
    kinds = sorted({row.sensitivity for row in plan.leaves})
    return [
        ("What is asked", "", about),
        (
            "Who takes part",
            "Each site signs its replies, and the keys under which sums are masked, with its key; the coordinator "
            "signs its messages with the key above. Compare these fingerprints with the sites and the coordinator by "
            f"telephone before you approve: a key in another's name could read what is masked.{_tree(plan)}",
            sites,
        ),
        (
            "What leaves the site",
            "Every message names a kind of request; nothing but the records listed here is sent in answer. C is the "
            f"number of classes ({plan.sizes.classes}), d the width of the model's last layer ({plan.sizes.features}), "
            "e that of a frozen encoder. Raw data never leave. An error leaves as a code, its phase, the site's name "
            "and an incident's number. Whatever this table says, the site's own node.yaml (sharing:) can refuse class "
            "counts, synthetic samples, records about single patients, and statistics of fewer than n patients.",
            [
                ["in answer to", "record", "what it holds", "values", "most bytes", "how often", "kind", "protection"],
                *map(_cells, plan.leaves),
            ],
        ),
        ("Kinds", "", [["kind", "meaning"], *([kind, _SAYS[kind]] for kind in kinds)]),
        (
            "What may differ between runs",
            "" if plan.vary else "Nothing: every run uses the configuration below.",
            vary if plan.vary else [],
        ),
        (
            "Limits",
            "What a site sends is checked against these before it is used; a reply beyond them is left out, and the "
            "site named. A site with more rows, or with values outside a column's range, does not take part.",
            _limits(plan),
        ),
        (
            "How much is asked at most",
            "The site answers each message of a run once; the same message again gets the same reply. It answers no "
            "more than this, whatever the coordinator sends, and counts what was asked about its data over all plans: "
            "fedimb node ledger. Epsilon is at the plan's privacy.delta, with the site's own share of the noise and "
            "without any gain from sampling; the unit is the whole site, for counts a row or a patient.",
            most,
        ),
        (
            "What approving means",
            "Runs within this plan may train on the data named above until it expires. A change of purpose, "
            "data tag, class list, release or table, or a setting outside the ranges, is another plan and needs a "
            "new approval. "
            f"The site can withdraw its approval at any time: fedimb node reject plan-{plan.sha} --reason TEXT.",
            [],
        ),
    ]


def _tree(plan: StudyPlan) -> str:
    """What regions have to do with a plan, as further sentences; empty if nothing."""
    if (part := plan.part) is not None:
        return (
            f" The coordinator is the region '{part.region}' of a larger study (plan {part.root}), of whose {part.of} "
            f"sites these are a part. It reads what this site sends as any coordinator does, and passes on the sum of "
            f"at least {part.min_members} sites, never a figure of one."
        )
    clients = plan.run_config().clients
    if clients.regions is None:
        return ""
    sizes = ", ".join(f"{site.name} ({size} sites)" for site, size in zip(plan.sites, clients.regions, strict=True))
    return (
        f" These are regions: {sizes}. Each is a coordinator to its sites, and answers with their sum, over at least "
        f"{clients.min_members} of them; the key is the region's."
    )


def _limits(plan: StudyPlan) -> list[list[str]]:
    limits, share = plan.limits, plan.run_config().clients.max_weight_share
    rows = [[f"rows at {site}", f"at most {most}"] for site, most in sorted(limits.rows.items())]
    rows.append([f"rows at {'another' if rows else 'a'} site", f"at most {limits.most_rows}"])
    pairs = {f"{low:g} to {high:g}" for low, high in limits.values}
    ranges = [f"{low:g} to {high:g}" for low, high in limits.values] if len(pairs) > 1 else sorted(pairs)
    rows.append(["values of a table's columns", "; ".join(ranges)])
    most = (
        "not limited" if share is None else f"at most {share:.0%}, from three sites on (with two nobody is protected)"
    )
    return [["limit", "value"], *rows, ["share of one site in a mean, a sum or a score", most]]


def _epsilons(budget: PlanBudget, plan: StudyPlan, precision: float) -> list[str]:
    """Epsilon of one run and of all, from the precision of one."""
    if not precision:
        return ["not bounded: no noise is added"] * 2
    delta = plan.run_config().privacy.delta
    return [f"{epsilon_of_precision(precision * runs, delta):.3g}" for runs in (1, budget.runs)]


def _cells(row: OutboundRecord) -> list[str]:
    protection = row.protection + ("; the site may refuse it in node.yaml" if row.refusable else "")
    size = format_bytes(row.most_bytes)
    return [row.message, row.record, row.content, row.shape, size, row.often, row.sensitivity, protection]


def _settings(plan: StudyPlan) -> list[list[str]]:
    from fedimb.config.load import flatten

    return [["setting", "value"], *([key, str(value)] for key, value in flatten(plan.run_config()).items())]


def as_markdown(plan: StudyPlan) -> str:
    """The page as Markdown."""
    lines = [f"# Study plan {plan.sha}"]
    for heading, sentence, table in [*_sections(plan), ("Configuration", "", _settings(plan))]:
        lines += ["", f"## {heading}", ""]
        lines += [sentence, ""] if sentence else []
        lines += _markdown_table(table)
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    if not table:
        return []
    rows = ["| " + " | ".join(_MARKUP.sub(r"\\\g<0>", _visible(cell)) for cell in row) + " |" for row in table]
    return [rows[0], "|" + " --- |" * len(table[0]), *rows[1:]]


def as_html(plan: StudyPlan) -> str:
    """The page as one HTML file without scripts or external references."""
    title = html.escape(f"Study plan {plan.sha}: {plan.purpose}")
    body = [f"<h1>Study plan {plan.sha}</h1>"]
    for heading, sentence, table in _sections(plan):
        body.append(f"<h2>{html.escape(heading)}</h2>")
        body += [f"<p>{html.escape(sentence)}</p>"] if sentence else []
        body.append(_html_table(table))
    body.append(f"<details><summary>Configuration</summary>{_html_table(_settings(plan))}</details>")
    head = '<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    head += f"style-src 'unsafe-inline'\"><title>{title}</title><style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _html_table(table: Sequence[Sequence[str]]) -> str:
    if not table:
        return ""
    first, *rest = table
    head = "<tr>" + "".join(f"<th>{html.escape(_visible(cell))}</th>" for cell in first) + "</tr>" if any(first) else ""
    rows = ["<tr>" + "".join(f"<td>{html.escape(_visible(cell))}</td>" for cell in row) + "</tr>" for row in rest]
    return f"<table>{head}{''.join(rows)}</table>"
