"""Recall per site or device of the test rows, as text: shown below a run's classes if its data name several."""

import math
from collections.abc import Mapping
from typing import TextIO

from fedimb.evaluation.domains import RECALLS
from fedimb.text import aligned, plain, score, shorten


def domain_lines(scores: Mapping[str, float], stream: TextIO | None = None) -> list[str]:
    """A table of sites or devices by id, then the worst scores; empty if the scores name none.

    Args:
        scores: a row's ``metrics``: ``domain/00_linz/macro_recall``, ``worst_domain_macro_recall``, ...
        stream: where the text will go.
    """
    if f"worst_domain_{RECALLS[0]}" not in scores:
        return []
    wanted = sorted(RECALLS, reverse=True)  # minority recall first
    named = sorted({key.split("/")[1] for key in scores if key.startswith("domain/")})
    table = [["site or device of the test rows", *(name.replace("_", " ") for name in wanted)]]
    for domain in named:
        figures = [scores.get(f"domain/{domain}/{name}", math.nan) for name in wanted]
        number, _, name = domain.partition("_")
        table.append([shorten(plain(f"{int(number)} {name}", stream), 40), *map(score, figures)])
    table.append(["worst, round by round", *(score(scores[f"worst_domain_{name}"]) for name in wanted)])
    return [*aligned(table), "means of the last scored rounds"]
