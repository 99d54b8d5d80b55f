"""The pages of plug-ins, one per kind, from the registry: what `fedimb list` prints."""

import argparse
from collections.abc import Mapping

from website.command_line import plain


def pages() -> dict[str, str]:
    """Address -> Markdown of the index and of each kind's page."""
    from fedimb import registry
    from fedimb.cli.listing import PLURALS, list_parts
    from fedimb.cli.output.parts import PartsListing

    made: dict[str, str] = {}
    rows = []
    for plural, kind in PLURALS.items():
        listing = list_parts(argparse.Namespace(kind=plural, name=None, json=True))
        assert isinstance(listing, PartsListing)
        words = registry.chosen_by(kind, "NAME")
        text = [f"# {plural.capitalize()}", f"Chosen by `{words}`; `fedimb list {plural}` prints this page."]
        for part in listing.parts:
            text.append(section(part.model_dump()))
        made[f"reference/parts/{plural}.md"] = "\n\n".join(text) + "\n"
        rows.append(f"| [{plural}]({plural}.md) | {len(listing.parts)} | `{words}` |")
    head = [
        "# Plug-ins",
        "",
        "Every part that is registered, by kind. Your own: [entry points](../../entry-points.md).",
        "",
        "| kind | parts | chosen by |",
        "| --- | --- | --- |",
    ]
    return {"reference/parts/index.md": "\n".join([*head, *rows]) + "\n"} | made


def section(part: Mapping[str, object]) -> str:
    """One part: what it does, what it needs and sends, its settings."""
    lines = [f"## {part['name']}", "", f"{plain(str(part['about']))}.", ""]
    facts = {"class counts": part["prior"], "leaves a site": part["leaves_a_site"], "flags": part["flags"]}
    lines += [f"- {name}: {plain(str(fact))}" for name, fact in facts.items() if fact not in ("", "none")]
    settings = part["settings"]
    assert isinstance(settings, list)
    lines += [
        f"- `{one['name']}`, default `{one['default']}`: {plain(one['about'] or 'no description')}" for one in settings
    ]
    return "\n".join(lines)
