"""A picture of how many rows of each class a method kept, drawn from the figures in its panel."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedimb.report.html.pictures import figure, tidy
from fedimb.rundir.partition_picture import ALL, FAINT
from fedimb.text import shorten


def kept_picture(kept: NDArray[np.integer], held: NDArray[np.integer], class_names: Sequence[str]) -> bytes:
    """Rows kept and rows held, a bar per class from the largest to the smallest: SVG, byte-identical for equal input.

    Args:
        kept, held: [C] number of rows.
        class_names: C names.
    """
    from matplotlib import rc_context

    order = np.lexsort((np.arange(len(held)), -np.asarray(held)))
    made = figure(max(4.0, 0.45 * len(order)), 2.8)
    axes = made.add_subplot()
    places = np.arange(len(order))
    axes.bar(places, held[order], color=FAINT, label="held")
    axes.bar(places, kept[order], color=ALL, label="kept")
    axes.set_xticks(places, [shorten(class_names[c], 10) for c in order], rotation=0 if len(order) <= 12 else 90)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylabel("rows")
    axes.legend(frameon=False)
    tidy(axes)
    with io.BytesIO() as file, rc_context({"svg.hashsalt": "fedimb", "svg.fonttype": "none"}):
        made.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()
