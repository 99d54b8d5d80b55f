"""Explanations of a run as text: what the rare classes light up, whether that can be believed, rules, changes."""

import math
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np

from fedimb.rundir.explanations import Facts
from fedimb.text import aligned, clean_text, plain

_FEATURES = 5
"""Columns named for each class."""
_ALIKE = 0.5
"""Mean rank correlation with maps of random models from which a reader is told so."""


def explanation_lines(found: Mapping[str, Facts], stream: TextIO | None = None) -> list[str]:
    """One block of lines per explanation, with a blank line between."""
    lines: list[str] = []
    for name, facts in found.items():
        shown = {"attribution": _attribution, "tree": _tree, "change": _change}.get(facts["explains"])
        block = [f"{name}: {_who(facts)}", *([] if shown is None else shown(facts, stream))]
        lines += [*([""] if lines else []), *block]
    return lines


def _who(facts: Facts) -> str:
    floor = facts["settings"].get("floor")
    asked = f"{facts['asked'] - len(facts['without'])} of {facts['asked']} clients"
    return f"{asked} sent an aggregate" + (f", of classes with at least {floor} people there" if floor else "")


def sanity_line(facts: Facts) -> str:
    """The verdict of the sanity check in words; empty if it was not made."""
    found = facts.get("sanity")
    if found is None:
        settings = facts["settings"]
        return "sanity check: not made" + (" (randomized=0)" if settings.get("randomized") == 0 else "")
    verdict = "passed" if found["passed"] else "FAILED"
    highest = max(found["random"])
    text = (
        f"sanity check (Adebayo et al. 2018): {verdict}: evidence for the rows' own class {found['evidence']:.2f}, of "
        f"{len(found['random'])} models with random weights at most {highest:.2f} (p {found['p']:.2f})"
    )
    if not found["passed"]:
        return f"{text}; these maps cannot be told from those of an untrained model: do not read them"
    if found["correlation"] > _ALIKE:
        text += (
            f"; the maps' ranks correlate {found['correlation']:.2f} with those of random weights: where they light up "
            "says more of the rows than of the model"
        )
    return text


def order_of(facts: Facts) -> list[int]:
    """Class ids to show: the minority, then the others by the number of rows explained."""
    rare = list(facts["minority"])
    others = [c for c in range(len(facts["class_names"])) if c not in rare]
    return rare + sorted(others, key=lambda c: (-facts["rows"][c], c))


def _class(facts: Facts, c: int, stream: TextIO | None) -> str:
    return plain(facts["class_names"][c], stream) + (" (minority)" if c in facts["minority"] else "")


def _attribution(facts: Facts, stream: TextIO | None) -> list[str]:
    table = facts["kind"] == "table"
    head = ["class", "rows", "in common with common classes", "focus"]
    rows = [[*head, "most of it"] if table else head]
    for c in order_of(facts):
        if not facts["rows"][c]:
            rows.append([_class(facts, c, stream), "0", "too few people", "", *([""] if table else [])])
            continue
        shared = facts["overlap"].get(str(c))
        own = np.array(facts["maps"][c])
        cells = [_class(facts, c, stream), str(facts["rows"][c]), "" if shared is None else f"{shared:.2f}"]
        cells.append(f"{_focus(own):.2f}")
        if table:
            cells.append(_named(own, features_of(facts), stream))
        rows.append(cells)
    return [*(f"  {line}" for line in aligned(rows)), f"  {sanity_line(facts)}"]


def _focus(map_: np.ndarray) -> float:
    """1 - entropy / log(places): 0 for an even map, 1 for a single place."""
    shares = map_.ravel()[map_.ravel() > 0]
    shares = shares / shares.sum() if len(shares) else shares
    return 1 + float((shares * np.log(shares)).sum()) / math.log(max(2, map_.size)) if len(shares) else math.nan


def features_of(facts: Facts) -> list[str]:
    """A table's columns, by number where the server does not know their names."""
    values = facts.get("maps") or facts.get("changed") or [[]]
    names = facts["features"]
    return names if len(names) == len(values[0]) else [f"column {at}" for at in range(len(values[0]))]


def _named(shares: np.ndarray, names: list[str], stream: TextIO | None) -> str:
    most = [at for at in np.argsort(-shares, kind="stable")[:_FEATURES] if shares[at] > 0]
    return ", ".join(f"{plain(names[at], stream)} {shares[at]:.0%}" for at in most)


def _tree(facts: Facts, stream: TextIO | None) -> list[str]:
    if not facts["trees"]:
        return ["  no client has enough people for a tree"]
    lines = [f"  fidelity {facts['fidelity']:.3f}: share of rows on which a client's tree and the model agree"]
    rare = [c for c in facts["minority"] if facts["found"][c] is not None]
    if rare:
        said = ", ".join(f"{_class(facts, c, stream)} {facts['found'][c]:.2f}" for c in rare)
        lines.append(f"  of the rows that the model gives a minority class, the trees give it too: {said}")
    for tree in facts["trees"]:
        where = "held-out rows" if tree["held_out"] else "the rows it was fitted to"
        lines.append(f"  client {tree['client']}: fidelity {tree['fidelity']:.3f} on {tree['rows']} {where}")
        lines += [f"    {clean_text(line) if not line.startswith(' ') else _indented(line)}" for line in tree["rules"]]
    return lines


def _indented(line: str) -> str:
    text = line.lstrip(" ")
    return " " * (len(line) - len(text)) + clean_text(text)


def _change(facts: Facts, stream: TextIO | None) -> list[str]:
    names, wanted = features_of(facts), facts["to"]
    rows = [["class", "rows", "flipped", "mean change", "columns changed (share of flipped rows, mean change)"]]
    for c in order_of(facts):
        if not facts["rows"][c] or not facts["flipped"][c]:
            why = "too few people" if not facts["rows"][c] else "too few flipped"
            rows.append([_class(facts, c, stream), str(facts["rows"][c]), why, "", ""])
            continue
        shares, amounts = np.array(facts["changed"][c]), facts["amount"][c]
        most = [at for at in np.argsort(-shares, kind="stable")[:_FEATURES] if shares[at] > 0]
        said = ", ".join(f"{plain(names[at], stream)} {shares[at]:.0%} by {amounts[at]:.3g}" for at in most)
        rows.append(
            [
                *(_class(facts, c, stream), str(facts["rows"][c]), str(facts["flipped"][c])),
                *(f"{facts['distance'][c]:.2f}", said or "none in enough rows"),
            ]
        )
    head = "to any other class" if wanted is None else f"to {plain(wanted, stream)}"
    return [f"  smallest change after which the model says another class, {head}"] + [
        f"  {line}" for line in aligned(rows)
    ]


def card_lines(found: Mapping[str, Facts]) -> list[str]:
    """The same as a section of a model card in Markdown; empty without explanations."""
    if not found:
        return []
    lines = ["## What the model looks at", ""]
    lines.append("From aggregates of the clients, of classes with enough people (docs/explain.md):")
    return [*lines, "", "```", *explanation_lines(found), "```"]


def shares_of(facts: Facts) -> list[tuple[str, Any]]:
    """(class, map) of the classes with rows, minority first, for pictures."""
    return [(_class(facts, c, None), np.array(facts["maps"][c])) for c in order_of(facts) if facts["rows"][c]]
