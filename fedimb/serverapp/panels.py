"""Figures of a method for the report, in the run folder's ``artifacts/panels/``; the report draws them."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def kept_panel(title: str, kept: NDArray[np.integer], held: NDArray[np.integer], class_names: Sequence[str]) -> bytes:
    """The content of ``panels/<name>.json`` for rows kept out of rows held; the report draws one bar per class.

    Args:
        title: title of the panel.
        kept, held: [C] number of rows.
        class_names: C names.
    """
    share = kept.sum() / max(1, held.sum())
    panel = {
        "title": title,
        "caption": f"{int(kept.sum())} of {int(held.sum())} rows ({share:.0%}), classes from head to tail.",
        "kept": kept.tolist(),
        "held": held.tolist(),
        "class_names": list(class_names),
    }
    return (json.dumps(panel) + "\n").encode()
