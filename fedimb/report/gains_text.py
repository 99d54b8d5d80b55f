"""What rows gain over plain FedAvg, taken apart: as a CSV, one line per setting and row, and as text for a terminal."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from fedimb.report.statistics_text import signed, wrapped
from fedimb.study.gains import Gain, Part, take_apart
from fedimb.study.results import COLUMNS, StudyResults
from fedimb.text import aligned, plain, shorten

PARTS = ("gain", "recipe", "scalars", "knobs", "remaining")


def gains_of(study: StudyResults) -> list[Gain]:
    """The study's gains in its primary score; none if it takes no row apart."""
    if not study.taken_apart:
        return []
    control, *rows = study.taken_apart
    return take_apart(study, rows, control, study.primary)


def gains_csv(gains: Sequence[Gain], path: Path) -> Path:
    """Write the means and intervals of `Gain`, in the unit of the score; empty cells are undefined."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        bounds = [f"{part}{end}" for part in PARTS for end in ("", "_low", "_high")]
        writer.writerow(["setting", "label", "control", "score", "seeds", *bounds, "luck"])
        for gain in gains:
            parts: list[Part] = [getattr(gain, part) for part in PARTS]
            figures = [value for part in parts for value in (part.mean, part.low, part.high)]
            cells = ["" if math.isnan(value) else f"{value:.6f}" for value in (*figures, gain.luck)]
            writer.writerow([gain.setting, gain.label, gain.control, gain.score, len(gain.seeds), *cells])
    return path


def gains_table(gains: Sequence[Gain], stream: TextIO | None = None) -> str:
    """Every setting's rows and parts, with what each column means; empty without gains."""
    if not gains:
        return ""
    control = plain(gains[0].control, stream)
    blocks = []
    for setting in dict.fromkeys(gain.setting for gain in gains):
        own = [gain for gain in gains if gain.setting == setting]
        title = f"{plain(setting, stream)}: gain in {COLUMNS[own[0].score]} over {control} as given, taken apart"
        head = ["strategy", "seeds", "gain", "recipe", "scalars", "knobs", "at equal tuning", "interval", "luck"]
        cells = [[shorten(plain(gain.label, stream), 24), str(len(gain.seeds)), *_figures(gain)] for gain in own]
        first, *lines = aligned([head, *cells])
        blocks.append("\n".join([title, first, "-" * len(first), *lines]))
    legend = [
        f"gain = recipe (as given, against {control} as given) + scalars (what tuning gives {control}) + knobs "
        "(what it gives the row beyond that)",
        f"at equal tuning: recipe + knobs, the tuned row against the tuned {control}, with its 95 % t interval",
        "luck: how far the best seed lies above that mean",
    ]
    return "\n\n".join([*blocks, "\n".join(line for text in legend for line in wrapped(text))])


def _figures(gain: Gain) -> list[str]:
    left = gain.remaining
    interval = "n/a" if math.isnan(left.low) else f"{signed(left.low)} to {signed(left.high)}"
    return [*(signed(getattr(gain, part).mean) for part in PARTS), interval, signed(gain.luck)]
