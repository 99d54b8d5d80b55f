"""Pictures of tuning: what the best of so many trials is expected to be, for every row of a setting."""

from dataclasses import dataclass

import numpy as np

from fedimb.report.html.pictures import COLOURS, CONTROL, FAINT, INK, figure, svg, tidy
from fedimb.study.results import COLUMNS, StudyResults, TuningCurve

_SIZE = (5.6, 3.1)


@dataclass(frozen=True)
class TuningPicture:
    """One setting's picture, with its heading."""

    title: str
    picture: str


def tuning_curves(study: StudyResults) -> list[TuningPicture]:
    """A picture for every setting that was tuned in more than one trial; ``*`` is all settings together."""
    scopes = dict.fromkeys(curve.setting for curve in study.curves if len(curve.best) > 1)
    return [
        TuningPicture(
            "all settings together" if scope == "*" else scope,
            _picture(study, [curve for curve in study.curves if curve.setting == scope], f"tuning{number}"),
        )
        for number, scope in enumerate(scopes)
    ]


def _picture(study: StudyResults, curves: list[TuningCurve], name: str) -> str:
    """The study's own rows and those taken apart in colour, the control of tables dashed, all others grey."""
    axes = figure(*_SIZE).add_subplot()
    tidy(axes)
    axes.set_xlabel("trials", fontsize=10.5)
    axes.set_ylabel(COLUMNS[curves[0].score], fontsize=10.5)
    foremost = [study.control, *study.taken_apart, *reversed([curve.label for curve in curves])]
    coloured = [label for label in dict.fromkeys(foremost) if label is not None][: len(COLOURS) + 1]
    looks = dict(zip([label for label in coloured if label != study.control], COLOURS, strict=False))
    for curve in sorted(curves, key=lambda one: one.label in looks):
        trials, best = np.arange(1, len(curve.best) + 1), np.array(curve.best)
        shown = np.isfinite(best)
        colour = CONTROL if curve.label == study.control else looks.get(curve.label, FAINT)
        style = "--" if curve.label == study.control else "-"
        axes.plot(trials[shown], best[shown], color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.5)
        if colour != FAINT and shown.any():
            end = (trials[shown][-1], best[shown][-1])
            axes.annotate(curve.label, end, (5, -3), textcoords="offset points", fontsize=9, color=INK)
    ends = ", ".join(f"{curve.label} {curve.best[-1]:.3f}" for curve in curves)
    return svg(axes.figure, name, f"expected best by number of trials, at the end: {ends}")
