"""The pages of settings, one per group of configs/, from the YAML: key, default, and what its comment says.

A key without a comment of its own has the meaning of the argument it is (from the part's docstring), or that of the
same key in another file of its group; one that has none at all fails tests/docs/test_site.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from website.command_line import plain

CONFIGS = Path(__file__).parents[1] / "configs"
FAR = 12
"""A comment alone on its line continues the one above if it starts at this column or further right."""
SECTIONS = ("about", "clients", "data", "local", "source", "test")
"""Mappings that are shown key by key below a data set; any other mapping is a value."""
KIND_OF = {"data": "source"}
"""Groups whose part is of a kind of another name."""
BASE = {"data": ("digits", "tabular_csv")}
"""Files whose comments say what a key means in every file of the group; others may say what is so in theirs."""
PLACE = {
    "coreset": "strategy=coreset: 'strategy.coreset.rule={name: NAME, ...}'",
    "encoder": "'strategy.coreset.encoder={name: NAME, ...}', and every other setting called encoder",
    "generator": "strategy=fedssg: 'strategy.fedssg.generator={name: NAME, ...}'",
    "query": "strategy=active: 'strategy.active.query={name: NAME, ...}'",
}


@dataclass(frozen=True)
class Setting:
    """One key of a file.

    Attributes:
        key: dotted, without the group.
        value: the default as written in the file; empty for one that is shown as a comment only.
        comment: what stands beside or above it; may be empty.
        optional: whether the line is a comment: an example of what may be given.
    """

    key: str
    value: str
    comment: str
    optional: bool = False


@dataclass(frozen=True)
class SettingsFile:
    """A YAML file: what it says at its top, and its keys."""

    path: Path
    about: str
    package: str
    settings: tuple[Setting, ...]


def comment_of(line: str) -> str:
    """What follows the # of a line, outside quotes."""
    found = re.match(r"""(?:[^#'"]|'[^']*'|"[^"]*"|(?<=\S)#)*?(?:^|(?<=\s))#\s?(.*)""", line)
    return found[1].strip() if found else ""


def above(lines: list[str], at: int, stop: int) -> str:
    """The comment lines directly above a line, down from line ``stop``."""
    found: list[str] = []
    while at > stop and lines[at - 1].lstrip().startswith("#") and indent(lines[at - 1]) < FAR:
        at -= 1
        if OPTION.match(lines[at]):
            break
        found.insert(0, comment_of(lines[at]))
    return " ".join(found)


def indent(line: str) -> int:
    """Blanks at the beginning of a line."""
    return len(line) - len(line.lstrip())


OPTION = re.compile(r"^\s*# ([a-z_]+): ([\w./-]+|\{.*\}|\[.*\]|'[^']*'|\"[^\"]*\")(?:\s+# ?(.*))?$")


def beside(lines: list[str], at: int) -> str:
    """A line's own comment and the lines that continue it."""
    found = [comment_of(lines[at])]
    while found[0] and at + 1 < len(lines) and lines[at + 1].lstrip().startswith("#") and indent(lines[at + 1]) >= FAR:
        at += 1
        found.append(comment_of(lines[at]))
    return " ".join(found)


@cache
def read(path: Path) -> SettingsFile:
    """A YAML file's keys with their comments."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    top = 0
    while top < len(lines) and lines[top].startswith("#") and not OPTION.match(lines[top]):
        top += 1
    head = [comment_of(line) for line in lines[:top]]
    package = next((line.removeprefix("@package ") for line in head if line.startswith("@package ")), "")
    about = " ".join(line for line in head if not line.startswith("@package "))
    whole = path.name == "config.yaml"

    def walk(node: yaml.MappingNode, before: str) -> Iterator[Setting]:
        for key, value in node.value:
            at = key.start_mark.line
            name = f"{before}{key.value}"
            nested = isinstance(value, yaml.MappingNode) and value.value
            if nested and (whole or name.rpartition(".")[2] in SECTIONS) and key.value != "defaults":
                yield from walk(value, f"{name}.")
            elif name != "defaults":
                written = text[value.start_mark.index : value.end_mark.index].strip()
                if "\n" in written or isinstance(value, yaml.MappingNode):
                    plainly = yaml.safe_load(text[key.start_mark.index - key.start_mark.column : value.end_mark.index])
                    written = yaml.safe_dump(plainly[key.value], default_flow_style=True, sort_keys=False, width=10_000)
                    written = written.removesuffix("\n").removesuffix("\n...")
                yield Setting(name, written, beside(lines, at) or above(lines, at, top))

    tree = yaml.compose(text)
    found = list(walk(tree, "")) if isinstance(tree, yaml.MappingNode) else []
    for at, line in enumerate(lines):
        if at >= top and (option := OPTION.match(line)) and indent(line) < FAR:
            more = [option[3] or ""]
            found.append(Setting(option[1], option[2], more[0], optional=True))
    return SettingsFile(path, about, package, tuple(found))


@cache
def files() -> tuple[SettingsFile, ...]:
    """Every file of configs/, config.yaml first."""
    return tuple(map(read, [CONFIGS / "config.yaml", *sorted(CONFIGS.glob("*/*.yaml"))]))


@cache
def shared(group: str) -> dict[str, str]:
    """Comments of a group's keys, where one file has one and others have not; the run's own for other sections.

    Only of groups in whose files a key means the same; ``temperature`` of two aggregators are two things.
    """
    found: dict[str, str] = {}
    if group not in ("data", "engine", "tracking"):
        return found
    first = BASE.get(group, ())
    for file in sorted(files(), key=lambda file: (file.path.name != "config.yaml", file.path.stem not in first)):
        if file.path.parent.name == group or file.path.name == "config.yaml":
            for one in file.settings:
                key = one.key.removeprefix(f"{group}.") if file.package == "_global_" else one.key
                if one.comment:
                    found.setdefault(key, one.comment)
    return found


def documented(group: str, name: str) -> dict[str, str]:
    """What the docstring of a part says of its arguments."""
    from fedimb import registry
    from fedimb.registry.arguments import docs_of

    kind = KIND_OF.get(group, group)
    if kind not in registry.KINDS:
        return {}
    return dict(docs_of(registry.get(kind, name).factory))


def meaning(file: SettingsFile, one: Setting) -> str:
    """What a key means: its comment, the docstring of the argument, the same key elsewhere; empty if nobody says."""
    group = file.path.parent.name
    if file.path.name == "config.yaml":
        return one.comment
    key = one.key.removeprefix("data.") if group == "data" else one.key
    if one.comment:
        general = shared(group).get(key, "") if group in BASE and file.path.stem not in BASE[group] else ""
        return f"{general}; here: {one.comment}" if general not in ("", one.comment) else one.comment
    if key.rpartition(".")[2] == "name":
        return "which one"
    if group == "data" and key.startswith("source."):
        source = next(s.value for s in file.settings if s.key.removeprefix("data.") == "source.name")
        return documented(group, source).get(key.removeprefix("source."), "") or shared(group).get(key, "")
    if group not in ("data", "engine", "tracking"):
        own = next((s.value for s in file.settings if s.key == "name"), file.path.stem)
        if said := documented(group, own).get(key, ""):
            return said
    return shared(group).get(key, "")


def undocumented() -> list[str]:
    """Keys of which nobody says what they mean: ``loss/focal.yaml: gamma``."""
    return [
        f"{file.path.relative_to(CONFIGS)}: {one.key}"
        for file in files()
        for one in file.settings
        if not meaning(file, one)
    ]


def entry(file: SettingsFile, one: Setting) -> str:
    """A list entry."""
    group = file.path.parent.name
    key = one.key
    if file.package not in ("", "_global_"):
        key = f"{file.package}.{key}"
    elif file.path.name != "config.yaml" and file.package != "_global_" and group not in PLACE:
        key = f"{group}.{key}"
    given = f"not set; for example `{one.value}`" if one.optional else f"`{one.value or 'null'}`"
    return f"- `{key}`, {given}: {plain(meaning(file, one))}"


def pages() -> dict[str, str]:
    """Address -> Markdown of the index, the run's own settings and one page per group."""
    run = files()[0]
    defaults = yaml.safe_load(run.path.read_text(encoding="utf-8"))["defaults"]
    groups = sorted({file.path.parent.name for file in files()[1:]})
    text = ["# Settings of a run", f"{plain(run.about)}.".replace("..", ".")]
    text.append("Parts are chosen by these words, here with their defaults:")
    text.append(
        "\n".join(f"- [`{g}={n}`]({g}.md)" for one in defaults if isinstance(one, dict) for g, n in one.items())
    )
    section = None
    entries: list[str] = []
    for one in run.settings:
        if (own := one.key.partition(".")[0] if "." in one.key else "") != section:
            entries.append(f"\n## {own or 'The run'}\n")
            section = own
        entries.append(entry(run, one))
    text.append("\n".join(entries))
    made = {"reference/settings/index.md": "\n\n".join(text) + "\n"}
    for group in groups:
        where = f"Given in {plain(PLACE[group])}." if group in PLACE else f"Chosen by `{group}=NAME`."
        body = [f"# Settings: {group}", f"{where} The files are `configs/{group}/*.yaml`."]
        for file in files()[1:]:
            if file.path.parent.name == group:
                body.append(f"## {group}={file.path.stem}\n\n{plain(file.about)}")
                if file.settings:
                    body.append("\n".join(entry(file, one) for one in file.settings))
        made[f"reference/settings/{group}.md"] = "\n\n".join(body) + "\n"
    return made
