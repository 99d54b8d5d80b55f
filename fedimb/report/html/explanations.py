"""Explanations of a report's runs: the terminal's text, and mean maps of the rare classes beside the common ones."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedimb.report.explanations import explanation_lines, shares_of
from fedimb.report.html.pictures import figure
from fedimb.rundir.explanations import Facts, read_explanations
from fedimb.study.results import Result
from fedimb.text import shorten

_MAPS = 8
"""Maps in a picture; the minority comes first."""


@dataclass(frozen=True)
class ExplanationView:
    """One run's explanations.

    Attributes:
        run: name of the run folder.
        text: the lines.
        pictures: title and ``data:`` URL of each attribution's maps of pictures.
    """

    run: str
    text: str
    pictures: tuple[tuple[str, str], ...]


def explanations(results: Iterable[Result]) -> list[ExplanationView]:
    """The explanations of each finished run that has any; pictures of the first one with maps only."""
    found: dict[str, ExplanationView] = {}
    drawn = False
    for result in results:
        folder = result.folder
        if folder is None or result.status != "finished" or folder.name in found:
            continue
        if not (folder / "config.json").is_file():  # rows of an MLflow store, whose run folders are elsewhere
            continue
        facts = read_explanations(folder)
        if not facts:
            continue
        with_maps = [one for one in facts.values() if one.get("kind") == "picture" and "maps" in one]
        pictures = () if drawn else tuple((str(one["name"]), maps_png(one)) for one in with_maps)
        pictures = tuple(one for one in pictures if one[1])
        drawn = drawn or bool(pictures)
        found[folder.name] = ExplanationView(folder.name, "\n".join(explanation_lines(facts)), pictures)
    return list(found.values())


def maps_png(facts: Facts) -> str:
    """Mean maps by class as one picture, each scaled to its own largest value: a ``data:`` URL; empty without any."""
    shown = shares_of(facts)[:_MAPS]
    if not shown:
        return ""
    made = figure(1.5 * len(shown), 1.9)
    for at, (name, map_) in enumerate(shown):
        axes = made.add_subplot(1, len(shown), at + 1)
        axes.imshow(np.atleast_2d(map_), cmap="Blues", vmin=0, interpolation="nearest")
        axes.set_title(shorten(name, 16), fontsize=9, parse_math=False)
        axes.set_axis_off()
    with io.BytesIO() as file:
        made.savefig(file, format="png", dpi=80, metadata={"Software": None})
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
