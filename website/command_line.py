"""The pages of the command line, one per verb, from the parsers themselves."""

import argparse
import os
from collections.abc import Iterator
from itertools import groupby


def usage_of(parser: argparse.ArgumentParser) -> str:
    """The usage line, at one width whatever the terminal's."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "90"
    try:
        return parser.format_usage().removeprefix("usage: ").strip()
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A list entry for each argument and option: its words, its values, its help."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        words = formatter._format_action_invocation(action)
        text = formatter._expand_help(action) if action.help else ""
        choices = f" One of {', '.join(map(str, action.choices))}." if action.choices and action.metavar else ""
        yield f"- `{words}`{': ' if text else ''}{plain(text)}{choices}"


def plain(text: str) -> str:
    """Help text as Markdown: what Markdown would take for its own is escaped."""
    for mark in ("\\", "*", "_", "<", "[", "]"):
        text = text.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    return " ".join(text.split())


def one(path: str, parser: argparse.ArgumentParser, level: str) -> str:
    """The section of one action."""
    parts = [f"{level} fedimb {path}", f"```text\n{usage_of(parser)}\n```"]
    if parser.description:
        parts.append(f"```text\n{parser.description.strip()}\n```")
    if listed := list(arguments(parser)):
        parts.append("\n".join(listed))
    return "\n\n".join(parts)


def pages() -> dict[str, str]:
    """Address -> Markdown of the index and of each verb's page."""
    from fedimb.cli.main import VERBS, every_leaf

    rows = [f"| [`fedimb {verb}`]({verb}.md) | {plain(line)} |" for verb, (_, line) in VERBS.items()]
    index = [
        "# Command line",
        "",
        "Every verb, from its own parser; `fedimb VERB --help` prints the same. "
        "What `--json` prints: [json](../../json.md).",
        "",
        "| verb | what it does |",
        "| --- | --- |",
        *rows,
    ]
    made = {"reference/cli/index.md": "\n".join(index) + "\n"}
    for verb, group in groupby(every_leaf(), lambda leaf: leaf[0].split()[0]):
        leaves = list(group)
        alone = len(leaves) == 1 and leaves[0][0] == verb
        text = "" if alone else f"# fedimb {verb}\n\n{plain(VERBS[verb][1])}\n\n"
        text += "\n\n".join(one(path, parser, "#" if alone else "##") for path, parser in leaves)
        made[f"reference/cli/{verb}.md"] = text + "\n"
    return made
