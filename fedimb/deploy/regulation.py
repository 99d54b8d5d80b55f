"""Which artefact of a study answers which item of a regulation: one table, from which page and dossier are made.

It names what software can show, and beside it what only people can answer. It is no legal advice, and an answered item
is no statement of conformity: whether a law applies, and whether what is shown suffices, people decide.

``python -m fedimb.deploy.regulation docs`` writes the tables of docs/regulation.md again.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedimb.atomic import write_atomic

_START, _END = "<!-- items -->\n", "<!-- end of items -->\n"


@dataclass(frozen=True)
class Artefact:
    """One piece of evidence.

    Attributes:
        key: its name in this table.
        what: what it shows.
        files: where it lies in the dossier; a name that ends in ``/`` is a folder with a file for each site.
        verb: what makes it.
        unless: a setting of the run under which there can be none; empty: always.
    """

    key: str
    what: str
    files: tuple[str, ...]
    verb: str
    unless: str = ""


@dataclass(frozen=True)
class Item:
    """One item of a regulation.

    Attributes:
        law: ``AI Act`` (Regulation (EU) 2024/1689), ``GDPR`` (Regulation (EU) 2016/679) or ``FDA PCCP``.
        place: article and paragraph, or section.
        asks: what it asks for, in short; the text of the law is what counts.
        artefacts: keys of what answers it.
        people: what software cannot answer; empty if nothing.
    """

    law: str
    place: str
    asks: str
    artefacts: tuple[str, ...]
    people: str = ""

    @property
    def name(self) -> str:
        """As in ``AI Act 10(3)``, for `--attach`."""
        return f"{self.law} {self.place}"


ARTEFACTS = (
    Artefact("plan", "purpose, contacts, sites and keys, ranges, expiry", ("run/plan.json",), "fedimb deploy plan"),
    Artefact("plan_page", "everything that leaves a site, for people", ("run/plan.md",), "fedimb deploy plan"),
    Artefact("config", "every setting of the run", ("run/config.json",), "fedimb deploy run"),
    Artefact(
        "identity", "data, partition, code and versions that the numbers come from", ("run/identity.json",),
        "fedimb deploy run",
    ),
    Artefact(
        "software", "packages and versions of the run, and all that are installed here",
        ("run/environment.json", "software.json"), "fedimb deploy run",
    ),
    Artefact("seal", "hashes of the run folder", ("run/seal.json",), "fedimb deploy run"),
    Artefact("split", "rows of each client, how they are split", ("run/partition.json",), "fedimb deploy run"),
    Artefact(
        "joined", "data version, rows, key and code that each site reported", ("run/joined.json",), "fedimb deploy run"
    ),
    Artefact(
        "log", "steps, and metrics of every round", ("run/journal.jsonl", "run/metrics.jsonl"), "fedimb deploy run"
    ),
    Artefact(
        "heads", "ends of the sites' audit logs, as they told them with each reply", ("run/heads/",),
        "fedimb deploy run",
    ),
    Artefact("result", "scores with intervals, confusion matrices, cost", ("run/result.json",), "fedimb deploy run"),
    Artefact(
        "model", "the model's description, hash, classes, scores and warnings", ("model.json",), "fedimb deploy run"
    ),
    Artefact("report", "the results as one page", ("run/report.html",), "fedimb report RUN"),
    Artefact(
        "subgroups", "recall, ECE and Brier score by subgroup", ("run/artifacts/subgroups.json",),
        "fedimb deploy plan ... 'data.subgroups=[...]' and a run under it",
    ),
    Artefact(
        "influence", "scores without each site in turn", ("run/artifacts/without_site.json",),
        "fedimb deploy run, with two sites or more", "evaluation.secure",
    ),
    Artefact("monitor", "what the run's monitor suspects of each row", ("monitor.json",), "fedimb deploy run"),
    Artefact(
        "incidents", "replies left out, sites set aside, how the run ended", ("incidents.json",), "fedimb deploy run"
    ),
    Artefact(
        "sites", "of each site: its approval, ledger, audit log, sharing policy, incidents, data version",
        ("sites/",), "fedimb node papers --to FILE at each site, and --paper FILE here",
    ),
    Artefact(
        "threat_model", "who is meant, what each message tells, what is promised and by which test",
        ("threat-model.md",), "--attach threat_model=FILE, with docs/threat-model.md of this release",
    ),
)  # fmt: skip

ITEMS = (
    Item(
        "AI Act", "9(2)", "identify and analyse known and foreseeable risks",
        ("threat_model", "monitor", "incidents"), "risks to patients' health and rights, and which are acceptable",
    ),
    Item(
        "AI Act", "9(6)-(8)", "test against metrics and thresholds defined beforehand",
        ("plan", "config", "result", "report"), "the thresholds that suit the intended purpose",
    ),
    Item(
        "AI Act", "10(2)", "data governance: origin, collection, preparation, assumptions",
        ("joined", "split", "config", "sites"), "how and why the data were collected, and by whom they were labelled",
    ),
    Item(
        "AI Act", "10(2)(f)-(g)", "examine for biases, and detect and mitigate them",
        ("subgroups",), "which groups matter, and what was done about a difference",
    ),
    Item(
        "AI Act", "10(3)", "data relevant, representative, as free of errors and complete as possible",
        ("split", "joined", "subgroups"), "whether they represent the patients the system is meant for",
    ),
    Item(
        "AI Act", "11(1), Annex IV", "technical documentation",
        ("plan", "config", "identity", "software", "model", "seal"),
        "intended purpose, instructions for use, declaration of conformity",
    ),
    Item("AI Act", "12(1)", "record events automatically", ("log", "heads", "sites")),
    Item(
        "AI Act", "13(3)", "instructions for use: performance, also for groups, and limits",
        ("model", "result", "subgroups"), "the instructions themselves, in the deployer's language",
    ),
    Item(
        "AI Act", "14", "human oversight",
        ("sites",), "who oversees predictions in use, with which training, and may overrule or stop them",
    ),
    Item("AI Act", "15(1)-(3)", "accuracy, and its metrics declared", ("result", "report", "model")),
    Item("AI Act", "15(4)", "robustness to errors and faults", ("influence", "incidents", "monitor")),
    Item(
        "AI Act", "15(5)", "cybersecurity, data and model poisoning among it",
        ("threat_model", "plan", "incidents"), "security of the machines and networks around the software",
    ),
    Item(
        "AI Act", "26(1)-(2)", "deployers use it as instructed, with competent oversight",
        ("sites",), "assignment and training of these persons",
    ),
    Item(
        "AI Act", "26(5)", "deployers monitor its operation and report serious incidents",
        ("monitor", "incidents"), "monitoring in clinical use, and whom to inform",
    ),
    Item("AI Act", "26(6)", "deployers keep logs for six months at least", ("log", "heads", "sites"), "for how long"),
    Item(
        "GDPR", "5(1)(a)-(b)", "lawful, fair and transparent; purpose limitation",
        ("plan",), "the legal basis, and what patients were told",
    ),
    Item("GDPR", "5(1)(c)", "data minimisation", ("plan_page",), "whether less would do"),
    Item("GDPR", "5(1)(d)-(e)", "accuracy; storage limitation", ("plan", "joined"), "deletion after the purpose ends"),
    Item("GDPR", "5(1)(f)", "integrity and confidentiality", ("seal", "threat_model", "plan_page")),
    Item("GDPR", "5(2)", "accountability", ("sites", "heads", "plan")),
    Item(
        "GDPR", "25", "data protection by design and by default",
        ("plan_page", "sites", "config"), "whether masks, noise and floors are chosen for these patients",
    ),
    Item(
        "GDPR", "30(1)", "record of processing activities",
        ("plan", "joined", "plan_page"), "names of controllers and officers, recipients, time limits for erasure",
    ),
    Item(
        "GDPR", "35(7)", "data protection impact assessment",
        ("plan_page", "threat_model"), "necessity, risks to patients' rights, measures, the officer's advice",
    ),
    Item(
        "FDA PCCP", "Description of Modifications", "which changes are planned, and their bounds",
        ("plan",), "which of them concern the device",
    ),
    Item(
        "FDA PCCP", "Modification Protocol: data", "data management practices",
        ("joined", "split", "sites"), "sequestration of test data over releases",
    ),
    Item(
        "FDA PCCP", "Modification Protocol: re-training", "re-training practices",
        ("config", "identity", "software"), "when a re-training is triggered",
    ),
    Item(
        "FDA PCCP", "Modification Protocol: evaluation", "performance evaluation, also of subgroups",
        ("result", "subgroups", "influence"), "acceptance criteria",
    ),
    Item(
        "FDA PCCP", "Modification Protocol: update", "update procedures",
        (), "how an update reaches users, is announced, and is taken back",
    ),
    Item(
        "FDA PCCP", "Impact Assessment", "benefits and risks of the modifications",
        ("monitor", "subgroups"), "the assessment itself",
    ),
)  # fmt: skip


def artefact(key: str) -> Artefact:
    """The artefact of this key. Raises KeyError."""
    return next(one for one in ARTEFACTS if one.key == key)


def items_table() -> list[list[str]]:
    """The items as rows of text, with a heading."""
    head = ["item", "asks for", "answered by", "what people answer"]
    return [head, *([one.name, one.asks, ", ".join(one.artefacts) or "-", one.people or "-"] for one in ITEMS)]


def artefacts_table() -> list[list[str]]:
    """The artefacts as rows of text, with a heading."""
    head = ["artefact", "shows", "files", "made by"]
    return [head, *([one.key, one.what, ", ".join(f"`{f}`" for f in one.files), _made_by(one)] for one in ARTEFACTS)]


def _made_by(one: Artefact) -> str:
    return f"{one.verb}; none with {one.unless}=true" if one.unless else one.verb


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """A table as Markdown, ending with a newline."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join([rows[0], "| " + " | ".join("---" for _ in table[0]) + " |", *rows[1:]]) + "\n"


def page_tables() -> str:
    """What docs/regulation.md has between its marks."""
    return f"\n{as_markdown(items_table())}\n## Artefacts\n\n{as_markdown(artefacts_table())}\n"


def with_tables(page: str) -> str:
    """The page with the tables as they are now. Raises ValueError if it has no marks."""
    before, _, rest = page.partition(_START)
    _, mark, after = rest.partition(_END)
    if not mark:
        raise ValueError(f"the page has no {_START.strip()} and {_END.strip()}")
    return f"{before}{_START}{page_tables()}{_END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1]) / "regulation.md"
    write_atomic(target, with_tables(target.read_text(encoding="utf-8")).encode())
