"""The dossier of a run: what the table of `fedimb.deploy.regulation` names, copied into one folder with hashes.

```
index.md        every item: answered by which files, or unanswered and what to do; what people have to answer
manifest.json   sha256 and size of every file, the items, and a hash over these
run/            files of the run folder, as they are; its weights are named by their hash only
sites/          papers of the sites (`fedimb node papers`)
attached/       documents that people wrote, by item
```
"""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fedimb
from fedimb.atomic import write_atomic
from fedimb.deploy.audit_log import utc_now
from fedimb.deploy.files import parse_settings
from fedimb.deploy.regulation import ARTEFACTS, ITEMS, Artefact, Item, artefact, artefacts_table, as_markdown
from fedimb.deploy.site.papers import SitePaper
from fedimb.deploy.study_plan.page import as_markdown as plan_page
from fedimb.deploy.study_plan.plan import StudyPlan, read_plan
from fedimb.errors import ConfigError, FedimbError, nearest
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import Damaged, own_hash_fits, with_own_hash

MANIFEST, INDEX = "manifest.json", "index.md"
FORMAT = 1
THREAT_MODEL = "threat_model"


@dataclass(frozen=True)
class Missing:
    """An artefact that is not there.

    Attributes:
        artefact: its key.
        files: which of its files are missing.
        items: the items it leaves unanswered.
        verb: what makes it.
    """

    artefact: str
    files: tuple[str, ...]
    items: tuple[str, ...]
    verb: str


@dataclass(frozen=True)
class Dossier:
    """A dossier.

    Attributes:
        folder: where it is.
        files: number of files, without manifest and index.
        answered, unanswered: names of items whose artefacts are all there, or not.
        missing: artefacts that are not there.
        for_people: items that need an answer by people, without a document attached.
        damaged: files that are not as the manifest says (`check` alone).
    """

    folder: Path
    files: int
    answered: tuple[str, ...]
    unanswered: tuple[str, ...]
    missing: tuple[Missing, ...]
    for_people: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every artefact is there, as it was gathered. What people have to answer does not count."""
        return not self.missing and not self.damaged


def gather(run: Path, to: Path, papers: Sequence[Path] = (), attached: Mapping[str, Path] | None = None) -> Dossier:
    """Make the dossier of a finished run.

    Args:
        run: its folder.
        to: the new folder.
        papers: of the sites, from `fedimb node papers`.
        attached: name of an item -> a document that people wrote for it; ``threat_model``: that page.

    Raises:
        Damaged: the run's seal does not hold, or it has none.
        ConfigError: the folder exists, no such item, the report is older than the result, or a paper is of another
            plan, of a site the plan does not list, a second one of a site, or older than the run.
        FedimbError: the run is not finished.
    """
    folder = RunFolder.open(run)
    result = _sealed(folder)
    if to.exists():
        raise ConfigError(f"{to} exists: a dossier is made in a new folder")
    documents = _attachments(attached or {})
    plan = _plan(folder)
    building = to.with_name(f".{to.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        _copy_run(folder, building / "run", plan)
        _write(building / "software.json", _software())
        _write(building / "model.json", _model(folder, result))
        _write(building / "monitor.json", _monitor(folder, result))
        _write(building / "incidents.json", _incidents(folder, result))
        _copy_papers(papers, building / "sites", plan, folder)
        for path, target in documents.values():
            (building / target).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, building / target)
        if THREAT_MODEL not in documents and (page := _own_threat_model()) is not None:
            shutil.copyfile(page, building / artefact(THREAT_MODEL).files[0])
        _seal_dossier(building, folder, plan, documents)
        building.rename(to)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return check(to)


def check(folder: Path) -> Dossier:
    """Check a dossier against its manifest, and say what it answers.

    Raises:
        ConfigError: not a dossier.
        Damaged: its manifest is not as it was written.
    """
    manifest = _manifest(folder)
    listed: dict[str, JsonObject] = manifest["files"]
    damaged = [name for name, one in listed.items() if _facts(folder / name) != one]
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    damaged += sorted(there - set(listed) - {MANIFEST})
    present = [name for name in listed if name not in damaged]
    return _assess(folder, present, manifest, tuple(damaged))


def _assess(folder: Path, files: Sequence[str], about: Mapping[str, Any], damaged: tuple[str, ...] = ()) -> Dossier:
    wanted = [one for one in ARTEFACTS if one.key not in about["not_applicable"]]
    lacking = {one.key: lack for one in wanted if (lack := _lacks(one, files, about["sites"]))}
    unanswered = tuple(item.name for item in ITEMS if any(key in lacking for key in item.artefacts))
    answered = tuple(item.name for item in ITEMS if item.name not in unanswered)
    missing = tuple(
        Missing(key, lack, tuple(one.name for one in ITEMS if key in one.artefacts), artefact(key).verb)
        for key, lack in lacking.items()
    )
    open_items = tuple(one.name for one in ITEMS if one.people and one.name not in about["attached"])
    inside = len([name for name in files if name != INDEX])
    return Dossier(folder, inside, answered, unanswered, missing, open_items, damaged)


def _lacks(one: Artefact, files: Sequence[str], sites: Sequence[str]) -> tuple[str, ...]:
    """The files of an artefact that are not there; of a folder one for each site."""
    wanted = []
    for name in one.files:
        if not name.endswith("/"):
            wanted.append(name)
            continue
        ending = ".jsonl" if name == "run/heads/" else ".json"
        wanted += [f"{name}{site}{ending}" for site in sites] or [name]
    return tuple(name for name in wanted if name not in files)


def _sealed(folder: RunFolder) -> RunResult:
    if folder.seal is None:
        raise Damaged(f"{folder.path} has no seal, so nothing shows that it is as the run wrote it: resume the run")
    folder.check_sealed("")
    if not folder.seal.ended:
        raise FedimbError(f"{folder.path} has not finished (status: {folder.status()}): a dossier is of a finished run")
    return RunResult.read(folder.path)


def _plan(folder: RunFolder) -> StudyPlan | None:
    path = folder.path / "plan.json"
    return read_plan(path.read_text(encoding="utf-8")) if path.is_file() else None


def _copy_run(folder: RunFolder, to: Path, plan: StudyPlan | None) -> None:
    """The run's own files of the table, without following links."""
    report = folder.path / "report.html"
    if report.is_file() and report.stat().st_mtime < (folder.path / "result.json").stat().st_mtime:
        raise ConfigError(f"{report} is older than the run's result: make it again, fedimb report {folder.path}")
    for one in ARTEFACTS:
        for name in one.files:
            source = folder.path / name.removeprefix("run/")
            if not name.startswith("run/") or source.is_symlink():
                continue
            inside = sorted(source.glob("*")) if name.endswith("/") else [source]
            for path in inside:
                if path.is_file() and not path.is_symlink():
                    target = to / path.relative_to(folder.path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
    if plan is not None:
        write_atomic(to / "plan.md", plan_page(plan).encode())


def _software() -> JsonObject:
    """Every installed distribution with its version: what ran at the coordinator, if it is gathered there."""
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return {"fedimb": fedimb.__version__, "installed": dict(sorted(found.items(), key=lambda one: one[0].lower()))}


def _model(folder: RunFolder, result: RunResult) -> JsonObject:
    """What a model card says, from the result, and the hashes of the model's files."""
    config, sealed = folder.read_json("config.json"), folder.seal
    files = {} if sealed is None else {n: sha for n, sha in sealed.files.items() if n.startswith("artifacts/model/")}
    return {
        "files": files,
        "model": config["model"],
        "strategy": list(config["strategy"]),
        "rounds": config["rounds"],
        "seed": result.seed,
        "task": result.task,
        "classes": list(result.class_names),
        "minority": [result.class_names[c] for c in result.minority],
        "rows": [
            {"label": row.label, "final": row.final, "intervals": row.intervals, "recall": row.recall}
            for row in result.rows
        ],
        "privacy": result.privacy,
        "warnings": [f"{row.label}: {why}" for row in result.rows for why in row.suspect.values()],
    }


def _monitor(folder: RunFolder, result: RunResult) -> JsonObject:
    config = folder.read_json("config.json")
    return {
        "on_suspect": config["run"]["on_suspect"],
        "rows": {row.label: row.suspect for row in result.rows},
        "suspect": result.suspect,
    }


def _incidents(folder: RunFolder, result: RunResult) -> JsonObject:
    events = [json.loads(line) for line in (folder.read("journal.jsonl") or b"").decode().splitlines()]
    kept = [event for event in events if not {"step"} & set(event)]
    return {"status": folder.read_json("status.json"), "left_out": result.left_out, "events": kept}


def _copy_papers(papers: Sequence[Path], to: Path, plan: StudyPlan | None, folder: RunFolder) -> None:
    for path in papers:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} is not a site's paper ({type(error).__name__}): make it with fedimb node papers"
            ) from None
        paper = parse_settings(content, SitePaper, f"site's paper {path}")
        known = [] if plan is None else [site.name for site in plan.sites]
        if paper.site not in known:
            raise ConfigError(
                f"{path} is of site '{paper.site}', which the run's plan does not list.{nearest(paper.site, known)}"
            )
        if plan is not None and paper.plan != plan.sha:
            raise ConfigError(f"{path} is about plan {paper.plan}, the run is under plan {plan.sha}")
        if why := _of_another_time(paper, folder):
            raise ConfigError(f"{path}: {why}: have the site make it again, fedimb node papers --to FILE")
        target = to / f"{paper.site}.json"
        if target.exists():
            raise ConfigError(f"{path} is a second paper of site '{paper.site}': give the later one alone")
        to.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _of_another_time(paper: SitePaper, folder: RunFolder) -> str | None:
    """Why a paper does not tell of this run; None if it does. By the data that the site joined with, and its audit log
    as it told the coordinator.
    """
    joined: JsonObject = folder.read_json("joined.json", {})
    version = joined.get(paper.site, {}).get("version")
    if version is not None and version not in paper.versions:
        return f"it does not know the data that {paper.site} joined this run with (version {version[:12]}...)"
    heads = [json.loads(line) for line in (folder.read(f"heads/{paper.site}.jsonl") or b"").splitlines()]
    told = max((int(head["line"]) for head in heads), default=0)
    lines = paper.audit["lines"]
    if isinstance(lines, int) and lines < told:
        return f"it is of the audit log's {lines} lines, and {paper.site} has told of {told} during the run"
    if any(head["line"] == lines and head["sha"] != paper.audit["sha"] for head in heads):
        return f"line {lines} of the audit log is not the one that {paper.site} told of during the run"
    return None


def _attachments(attached: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Item -> (document, its place in the dossier)."""
    known = {item.name: item for item in ITEMS}
    found = {}
    for name, path in attached.items():
        if name != THREAT_MODEL and name not in known:
            raise ConfigError(f"--attach {name}: no such item.{nearest(name, [THREAT_MODEL, *known])}")
        if not path.is_file():
            raise ConfigError(f"--attach {name}={path}: no such file")
        legal = "".join(c if c.isalnum() else "-" for c in name)
        target = artefact(THREAT_MODEL).files[0] if name == THREAT_MODEL else f"attached/{legal}{path.suffix}"
        found[name] = (path, target)
    return found


def _own_threat_model() -> Path | None:
    """The page of this release, where fedimb runs from its source."""
    page = Path(fedimb.__file__).parents[1] / "docs" / "threat-model.md"
    return page if page.is_file() else None


def _write(path: Path, content: JsonObject) -> None:
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _facts(path: Path) -> JsonObject | None:
    """Size and sha256 of a file; None if it is not there, or a link."""
    if path.is_symlink() or not path.is_file():
        return None
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _seal_dossier(
    building: Path, folder: RunFolder, plan: StudyPlan | None, documents: Mapping[str, tuple[Path, str]]
) -> None:
    names = sorted(str(path.relative_to(building)) for path in building.rglob("*") if path.is_file())
    sites = [] if plan is None else [site.name for site in plan.sites]
    about: dict[str, Any] = {
        "format": FORMAT,
        "made": utc_now(),
        "fedimb": fedimb.__version__,
        "run": folder.path.name,
        "plan": None if plan is None else plan.sha,
        "sites": sites,
        "attached": {name: target for name, (_, target) in documents.items()},
        "not_applicable": [one.key for one in ARTEFACTS if one.unless and _setting(folder, one.unless)],
    }
    found = _assess(building, names, about)
    write_atomic(building / INDEX, index_page(found, about).encode())
    files = {name: _facts(building / name) for name in sorted([*names, INDEX])}
    write_atomic(building / MANIFEST, with_own_hash({**about, "files": files}))


def _setting(folder: RunFolder, key: str) -> object:
    found: Any = folder.read_json("config.json")
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{folder} is not a dossier (no {MANIFEST}): fedimb deploy dossier RUN --to FOLDER") from None
    except ValueError:
        content = {}
    if not isinstance(content, dict) or "sha256" not in content or not own_hash_fits(content):
        raise Damaged(f"{path} is not as it was written: gather the dossier again from the run")
    if content["format"] != FORMAT:
        raise ConfigError(f"{path} has format {content['format']}, this release of fedimb reads {FORMAT}")
    return content


def index_page(found: Dossier, about: Mapping[str, Any]) -> str:
    """index.md: the table of `fedimb.deploy.regulation` with what this dossier holds."""
    lacking = {one.artefact: one for one in found.missing}
    rows = [["item", "asks for", "answered by", "what people answer"]]
    for item in ITEMS:
        answer = _answer(item, lacking, about["not_applicable"])
        rows.append([item.name, item.asks, answer, _people(item, about["attached"])])
    lines = [
        f"# Dossier of run {about['run']}",
        "",
        f"Study plan {about['plan'] or 'none'}; sites {', '.join(about['sites']) or 'none'}; gathered {about['made']} "
        f"with fedimb {about['fedimb']}. Hashes of all files: {MANIFEST}; check them with "
        "`fedimb deploy dossier --check FOLDER`.",
        "",
        "This is no legal advice and no statement of conformity: it lists what the software recorded, and what people "
        "have to answer.",
        "",
        f"{len(found.answered)} of {len(ITEMS)} items have all their artefacts; {len(found.for_people)} need a "
        "document that people write.",
        "",
        "## Items",
        "",
        as_markdown(rows),
        "## Missing",
        "",
    ]
    if lacking:
        table = [["artefact", "files", "items left unanswered", "make it with"]]
        table += [[one.artefact, ", ".join(one.files), ", ".join(one.items) or "-", one.verb] for one in found.missing]
        lines.append(as_markdown(table))
    else:
        lines += ["Nothing.", ""]
    lines += ["## Artefacts", "", as_markdown(artefacts_table())]
    return "\n".join(lines)


def _answer(item: Item, lacking: Mapping[str, Missing], not_applicable: Sequence[str]) -> str:
    if not item.artefacts:
        return "nothing: software cannot"
    marks = dict.fromkeys(lacking, " (**missing**)")
    marks |= {key: f" (none with {artefact(key).unless}=true)" for key in not_applicable}
    return ", ".join(f"{key}{marks.get(key, '')}" for key in item.artefacts)


def _people(item: Item, attached: Mapping[str, str]) -> str:
    if not item.people:
        return "-"
    document = attached.get(item.name)
    return f"{item.people}: `{document}`" if document else f"{item.people} (**open**)"
