"""Make the two files of embeddings that the studies of this folder read, under runs/scope.

    python experiments/encoders/disjoint_cnn.py    # once: trains the strong encoder on images no client has
    python experiments/scope/make_data.py          # half a minute

strong.npz: the 25,000 reserved training images and 10,000 test images of CIFAR-10 as 256 features of `disjoint_cnn`,
and its class means over its own training images, which stand in for text vectors: both the data of the studies
(``data=embeddings_npz``) and SCOPE's encoder (``precomputed_text``). weak.npz: the same images by `random_conv`, no
class vectors. With --images also images.npz, the images themselves (``data=npz``), and images_strong.npz, the features
of strong.npz in the order of images.npz, for end_to_end.yaml. None is kept in the repository.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedimb.data.longtail import keep_rows
from fedimb.data.store import Store, open_source
from fedimb.encoders.checks import unit_rows
from fedimb.encoders.embed import embed, open_encoder
from fedimb.errors import DataError
from fedimb.seeds import Stream, numpy_rng

N_MAX = 2500


def nearest_prototype(
    x: NDArray[np.float32], y: NDArray[np.int64], vectors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Recall [C] of the class vector with the largest cosine; NaN for a class without rows."""
    guess = (unit_rows(torch.from_numpy(x)) @ unit_rows(torch.from_numpy(vectors)).T).argmax(1).numpy()
    hits, rows = (np.bincount(part, minlength=len(vectors)).astype(float) for part in (y[guess == y], y))
    return np.divide(hits, rows, out=np.full(len(vectors), np.nan), where=rows > 0)


def class_means(x: NDArray[np.float32], y: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """[C, d] means of unit-length rows."""
    unit = unit_rows(torch.from_numpy(x)).numpy()
    return np.stack([unit[y == label].mean(0) for label in range(classes)]).astype(np.float32)


def write_images(
    to: Path,
    store: Store,
    rows: NDArray[np.int64],
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    test: NDArray[np.bool_],
    vectors: NDArray[np.float32],
) -> None:
    """images.npz in MedMNIST's layout, training rows first, and images_strong.npz in the same order."""
    pictures, names = np.asarray(store.x[rows]), np.array(store.class_names)
    parts = {"train": ~test, "test": test}
    arrays = {f"{part}_images": pictures[mask] for part, mask in parts.items()}
    np.savez(to / "images.npz", **arrays, **{f"{part}_labels": y[mask][:, None] for part, mask in parts.items()})
    order = np.concatenate([np.flatnonzero(mask) for mask in parts.values()])
    np.savez(to / "images_strong.npz", x=x[order], y=y[order], class_names=names, class_vectors=vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, default=Path("runs/encoders/disjoint_cnn.safetensors"))
    parser.add_argument("--output", type=Path, default=Path("runs/scope"))
    parser.add_argument("--images", action="store_true", help="also what end_to_end.yaml reads, 140 MB")
    parser.add_argument("--to", type=Path, default=Path(__file__).absolute().parent)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    store = open_source({"name": "image_folder", "path": "cifar10.zip"})
    if store.official_test is None:
        raise DataError("cifar10.zip has no test/ folder; see configs/data/cifar10.yaml for its layout")
    train, labels = np.flatnonzero(~store.official_test), np.asarray(store.y)
    reserved = keep_rows(train, labels, np.full(store.n_classes, N_MAX), numpy_rng(0, Stream.TAIL, 1))
    rows = np.sort(np.concatenate([reserved, np.flatnonzero(store.official_test)]))
    y, test = labels[rows].astype(np.int64), np.asarray(store.official_test)[rows]
    names = np.array(store.class_names)

    strong = open_encoder({"name": "disjoint_cnn", "path": str(args.encoder.absolute())}, store)
    weak = open_encoder({"name": "random_conv"}, store)
    vectors = strong.class_vectors(store.class_names)
    assert vectors is not None  # disjoint_cnn always has them
    x = embed(strong, store, rows).numpy()
    np.savez(args.output / "strong.npz", x=x, y=y, class_names=names, test=test, class_vectors=vectors.numpy())
    if args.images:
        write_images(args.output, store, rows, x, y, test, vectors.numpy())
    x_weak = embed(weak, store, rows).numpy()
    np.savez(args.output / "weak.npz", x=x_weak, y=y)

    recalls = {
        "disjoint_cnn, its own class vectors": nearest_prototype(x[test], y[test], vectors.numpy()),
        "disjoint_cnn, class means": nearest_prototype(x[test], y[test], class_means(x[~test], y[~test], len(names))),
        "random_conv, class means": nearest_prototype(
            x_weak[test], y[test], class_means(x_weak[~test], y[~test], len(names))
        ),
    }
    with (args.to / "prototypes.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["encoder", "mean", *store.class_names])
        for label, recall in recalls.items():
            out.writerow([label, f"{recall.mean():.3f}", *(f"{value:.3f}" for value in recall)])
            print(f"{label}: nearest prototype {recall.mean():.3f} on the test images")


if __name__ == "__main__":
    main()
