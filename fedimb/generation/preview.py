"""A picture of synthetic images, one line per class: the first thing to look at."""

import io

import numpy as np
from torch import Tensor

from fedimb.generation.examples import Examples

EDGE, PER_CLASS, GAP = 32, 16, 2


def preview_png(samples: Examples, class_names: tuple[str, ...]) -> bytes:
    """PNG: up to 16 samples of each class, one line per class; images [h, w] or [c, h, w] in 0..1."""
    from PIL import Image

    step = EDGE + GAP
    page = Image.new("RGB", (PER_CLASS * step + GAP, len(class_names) * step + GAP), "white")
    for label in range(len(class_names)):
        for place, x in enumerate(samples.x[samples.y == label][:PER_CLASS]):
            tile = Image.fromarray(_pixels(x)).resize((EDGE, EDGE), Image.Resampling.NEAREST)
            page.paste(tile, (GAP + place * step, GAP + label * step))
    file = io.BytesIO()
    page.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _pixels(x: Tensor) -> np.ndarray:
    """[h, w, 3] uint8; grey images stay grey, of more than three channels the first three are shown."""
    image = x if x.ndim == 3 else x[None]
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return (image.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
