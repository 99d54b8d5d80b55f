"""The contact sheet: each sample beside the real record nearest to it, for people at the site."""

import base64
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.annotation.thumbnails import check_pictures, png
from fedimb.privacy.audit.distances import Scale, nearest_records
from fedimb.privacy.audit.types import Batch

_STYLE = (
    "body{font:14px sans-serif;margin:1em}figure{display:inline-block;margin:4px;padding:4px;border:1px solid #bbb}"
    "img{width:128px;image-rendering:pixelated}td,th{padding:1px 6px;text-align:right;border-bottom:1px solid #ddd}"
    "tr.real td{color:#a33c00}"
)


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse rows that can be shown neither as numbers [F] nor as pictures.

    Raises:
        DataError: why, and the remedy; also if pictures need Pillow and it is missing.
    """
    if len(shape) != 1:
        check_pictures(shape)


def contact_sheet(samples: Batch, real: Batch, title: str) -> bytes:
    """One self-contained HTML file, samples nearest to a real record first.

    Args:
        samples: of one class.
        real: the generator's training records of every class: a copy may have another class.
        title: plain text, escaped here.

    Raises:
        DataError: see `check_shape`.
    """
    check_shape(samples.x.shape[1:])
    scale = Scale.of(real.x)
    distance, position = nearest_records(scale(samples.x), scale(real.x))
    order = np.argsort(distance, kind="stable")
    body = _pictures if samples.x.ndim > 2 else _table
    html = (
        f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1><p>{len(samples)} synthetic samples, beside each the nearest real record and their "
        "distance in standard deviations; the nearest first. Release or reject with <code>fedimb outbox</code>; this "
        "page is deleted then, and never leaves the site.</p>"
    )
    return (html + body(samples.x[order], real.x[position[order]], distance[order])).encode()


def _pictures(samples: NDArray[np.generic], real: NDArray[np.generic], distance: NDArray[np.float64]) -> str:
    def image(x: NDArray[Any], what: str) -> str:
        return f'<img alt="{what}" title="{what}" src="data:image/png;base64,{base64.b64encode(png(x, 1.0)).decode()}">'

    return "\n".join(
        f"<figure>{image(sample, 'synthetic')} {image(record, 'nearest real')}<figcaption>{far:.3g}</figcaption>"
        "</figure>"
        for sample, record, far in zip(samples, real, distance, strict=True)
    )


def _table(samples: NDArray[np.generic], real: NDArray[np.generic], distance: NDArray[np.float64]) -> str:
    def row(kind: str, far: str, values: NDArray[Any]) -> str:
        return f'<tr class="{kind}"><td>{kind}<td>{far}' + "".join(f"<td>{float(value):.5g}" for value in values)

    names = "".join(f"<th>x{j}" for j in range(1, samples.shape[1] + 1))
    rows = [
        line
        for sample, record, far in zip(samples, real, distance, strict=True)
        for line in (row("synthetic", f"{far:.3g}", sample), row("real", "", record))
    ]
    return f"<table><tr><th><th>distance{names}\n" + "\n".join(rows) + "</table>"
