"""Pictures of mean ranks over data sets with Nemenyi's critical difference (Demšar, JMLR 7, 2006, figure 1)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedimb.evaluation.ranks import Ranks
from fedimb.rundir.partition_picture import INK, new_figure, save_figure
from fedimb.study.over_sets import OverSets
from fedimb.study.results import COLUMNS
from fedimb.text import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABEL = 32


def rank_figure(ranks: Ranks, title: str) -> "Figure":
    """Rows at their mean ranks, 1 being best; a bar joins those that Nemenyi's test does not tell apart.

    Args:
        ranks: of at least two rows, without a ``note``.
        title: what was ranked, over what.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure(8.5, 1.3 + 0.16 * len(ranks.methods))
    from pandas import DataFrame
    from scikit_posthocs import critical_difference_diagram

    names = [shorten(name, _LABEL) for name in ranks.methods]
    if len(set(names)) < len(names):
        names = list(ranks.methods)
    axes = figure.add_subplot()
    critical_difference_diagram(
        dict(zip(names, ranks.mean_ranks.tolist(), strict=True)),
        DataFrame(ranks.pairwise, index=names, columns=names),
        alpha=ranks.alpha,
        ax=axes,
        label_fmt_left="{label}  {rank:.2f}",
        label_fmt_right="{rank:.2f}  {label}",
        label_props={"fontsize": 8.5},  # in the colour of its line
        elbow_props={"color": INK, "linewidth": 0.8},
        marker_props={"color": INK, "s": 14},
    )
    note = f"mean rank, 1 is best; critical difference {ranks.critical_difference:.2f} (Nemenyi, {ranks.alpha:g})"
    axes.set_title(f"{title}: {note}", fontsize=8.5, color=INK)
    return figure


def draw_ranks(over: OverSets, folder: Path) -> list[Path]:
    """Write ``critical_difference_<score>.svg`` of every score that has ranks.

    Returns:
        the files.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    return [
        save_figure(rank_figure(ranks, rank_title(over, score)), folder / f"critical_difference_{score}.svg")
        for score, ranks in over.ranks.items()
        if drawable(ranks)
    ]


def drawable(ranks: Ranks) -> bool:
    """Whether there are ranks to draw: two data sets and three rows or more, and not all equal everywhere."""
    return not ranks.note and bool(np.isfinite(ranks.pairwise).all()) and float(np.ptp(ranks.mean_ranks)) > 0


def rank_title(over: OverSets, score: str) -> str:
    """``macro recall over 12 data sets``."""
    return f"{COLUMNS[score]} over {len(over.data_sets)} data sets"
