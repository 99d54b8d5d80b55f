"""Features of real images, for the studies of this folder and of experiments/fedssg: lite0's 320 values of each image.

    python experiments/fairfal/make_data.py --output runs/lite0     # two minutes on one core

lite0_cifar10.npz holds 600 training and 200 test images of each class; lite0_pneumonia.npz 1,500 training images with
pneumonia, all 388 without and all 624 test images (its validation part, of which eight images are in the training part
too, is left out). Images are drawn with a fixed seed, and classes are numbered by their training images, the most
frequent first. The files are data of ``data=embeddings_npz`` and lie in no
repository. The images are read below $FEDIMB_DATA_DIR; the encoder's packages come with pip install 'fedimb[encoders]'.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.longtail import keep_rows
from fedimb.data.store import open_source
from fedimb.data.subgroups import source_to_open
from fedimb.encoders.embed import embed, open_encoder
from fedimb.seeds import Stream, numpy_rng

SETS: Mapping[str, tuple[str, int, int]] = {
    "cifar10": ("cifar10", 600, 200),
    "pneumonia": ("pneumonia_tail", 1500, 400),
}
"""File -> data set, and how many training and test images of each class at most."""


def write(name: str, to: Path) -> None:
    """One file."""
    data, *most = SETS[name]
    store = open_source(source_to_open(validate(compose([f"data={data}"])).data))
    assert store.official_test is not None  # all three have one
    y, test = np.asarray(store.y, np.int64), np.asarray(store.official_test)
    parts = []
    for part, count in zip((~test, test), most, strict=True):
        rows = np.flatnonzero(part)
        counts = np.minimum(np.bincount(y[rows], minlength=store.n_classes), count)
        parts.append(keep_rows(rows, y, counts, numpy_rng(0, Stream.TAIL, 1)))
    rows = np.sort(np.concatenate(parts))
    x = embed(open_encoder({"name": "lite0"}, store), store, rows).numpy()
    order = np.argsort(-np.bincount(y[parts[0]], minlength=store.n_classes), kind="stable")
    place, names = np.argsort(order), np.array(store.class_names)[order]
    np.savez(to / f"lite0_{name}.npz", x=x, y=place[y[rows]], test=test[rows], class_names=names)
    print(
        f"{name}: {int((~test[rows]).sum()):,} training and {int(test[rows].sum()):,} test rows of {x.shape[1]} values"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/lite0"))
    parser.add_argument("--only", choices=list(SETS), nargs="*", default=list(SETS))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in args.only:
        write(name, args.output)


if __name__ == "__main__":
    main()
