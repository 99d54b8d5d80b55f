"""What each encoder that needs no download gives on digits and CIFAR-10, and what it costs.

    python experiments/encoders/disjoint_cnn.py   # once: makes the file that the last row needs
    python experiments/encoders/measure.py        # about three minutes; writes encoders.csv beside this file

Nearest prototype: share of test rows nearest, by cosine, to their own class's mean of training rows. Seconds: one pass
over the training rows, nothing kept before; selection adds class means and SCOPE's three scores of every row. Whatever
the batch: the largest change of a value of a unit vector when 2,000 rows are embedded one or seven at a time instead of
64.
"""

import csv
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedimb import registry
from fedimb.data.store import Store, open_source
from fedimb.data.views import to_tensors
from fedimb.encoders.checks import unit_rows
from fedimb.encoders.embed import embed, open_encoder
from fedimb.seeds import Stream, torch_generator
from fedimb.selection.prototypes import class_prototypes
from fedimb.study.experiments import arguments, parser_of
from fedimb.training.forward import forward_batched
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

SOURCES = {"digits": {"name": "digits"}, "cifar10": {"name": "image_folder", "path": "cifar10.zip"}}
Row = dict[str, Any]


def split(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """(training, test) rows: the official test set, or every third row."""
    every = np.arange(len(store))
    is_test = every % 3 == 0 if store.official_test is None else np.asarray(store.official_test)
    return every[~is_test], every[is_test]


def scores(unit: torch.Tensor, vectors: torch.Tensor, y: torch.Tensor) -> float:
    """Seconds of SCOPE's three scores of every row: the matrix of cosines, its own class, the nearest other one."""
    started = time.perf_counter()
    cosine = unit @ vectors.T
    own = cosine.gather(1, y[:, None])
    (1 - own**2).clamp(min=0).sqrt()
    cosine.scatter(1, y[:, None], -2.0).max(1)
    return time.perf_counter() - started


def accuracy(train: torch.Tensor, y: torch.Tensor, test: torch.Tensor, z: torch.Tensor, n_classes: int) -> float:
    means = class_prototypes(train, y, n_classes)
    return float((unit_rows(test) @ means.T).argmax(1).eq(z).double().mean())


def one(data: str, store: Store, config: Row, rows: np.ndarray) -> Row:
    """A line of the table."""
    torch.set_num_threads(1)
    train, test = split(store)
    train = np.intersect1d(train, rows)
    y, z = (torch.from_numpy(np.asarray(store.y)[part]) for part in (train, test))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEDIMB_CACHE_DIR"] = folder
        encoder = open_encoder(config, store)
        started = time.perf_counter()
        embeddings = embed(encoder, store, train)
        seconds = time.perf_counter() - started
        unit = unit_rows(embeddings)
        vectors = class_prototypes(unit, y, store.n_classes)
        chosen = time.perf_counter() - started + scores(unit, vectors, y)
        started = time.perf_counter()
        embed(encoder, store, train)
        again = time.perf_counter() - started
        of_test = embed(encoder, store, test)
        few = train[:: max(1, len(train) // 2000)][:2000]
        worst = max(drift(encoder, store, few, size, folder) for size in (1, 7))
    return {
        "data": data,
        "encoder": config["name"],
        "d": embeddings.shape[1],
        "rows": len(train),
        "threads": 1,
        "seconds": round(seconds, 2),
        "seconds_with_selection": round(chosen, 2),
        "seconds_again": round(again, 3),
        "whatever_the_batch": f"{worst:.0e}",
        "nearest_prototype": round(accuracy(embeddings, y, of_test, z, store.n_classes), 3),
    }


def drift(encoder: Any, store: Store, rows: np.ndarray, batch: int, folder: str) -> float:
    whole = unit_rows(embed(encoder, store, rows))
    os.environ["FEDIMB_CACHE_DIR"] = f"{folder}/{batch}"  # or the first answer would be read again
    parts = unit_rows(embed(encoder, store, rows, batch=batch))
    os.environ["FEDIMB_CACHE_DIR"] = folder
    return float((whole - parts).abs().max())


def half(path: Path, config: Row, rows: np.ndarray, cache: str) -> float:
    """In a process of its own, as an engine's worker: seconds to embed, and score against vectors of the same rows."""
    torch.set_num_threads(1)
    os.environ["FEDIMB_CACHE_DIR"] = cache
    store = Store.open(path)
    started = time.perf_counter()
    unit, y = unit_rows(embed(open_encoder(config, store), store, rows)), torch.from_numpy(np.asarray(store.y)[rows])
    scores(unit, class_prototypes(unit, y, store.n_classes), y)
    return time.perf_counter() - started


def two_workers(data: str, store: Store, config: Row) -> Row:
    """The training rows by two processes of one thread each, half each: how an engine uses two cores."""
    train, _ = split(store)
    halves = [train[::2], train[1::2]]
    with tempfile.TemporaryDirectory() as cache, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        few = [part[::500] for part in halves]
        list(pool.map(half, [store.path] * 2, [config] * 2, few, [cache] * 2))  # both are started up now
        started = time.perf_counter()
        list(pool.map(half, [store.path] * 2, [config] * 2, halves, [cache] * 2))
        seconds = time.perf_counter() - started
    facts = {"data": data, "encoder": f"{config['name']}, two workers", "rows": len(train), "threads": 1}
    return facts | {"seconds_with_selection": round(seconds, 2)}


def own_features(store: Store) -> Row:
    """`global_features` on digits: an mlp trained on all training rows together, 15 epochs."""
    train, test = split(store)
    (x, y), (u, z) = (to_tensors(store, rows) for rows in (train, test))
    torch.manual_seed(0)
    model = registry.build("model", "mlp", {"n_classes": store.n_classes, "input_shape": store.input_shape})
    steps = 15 * -(-len(y) // 16)
    spec = TrainSpec("train", steps, 16, "sgd", 0.1, 0.0, 0.0, CrossEntropy(), Shuffle())
    train_locally(model, x, y, spec, torch_generator(0, Stream.TRAIN))
    ours, theirs = (forward_batched(model, rows)[0] for rows in (x, u))
    facts = {"data": "digits", "encoder": "global_features (mlp, pooled, 15 epochs)", "d": ours.shape[1]}
    return facts | {"rows": len(y), "nearest_prototype": round(accuracy(ours, y, theirs, z, store.n_classes), 3)}


def main() -> None:
    args = arguments(parser_of(Path(__file__), __doc__))
    stores = {data: open_source(source) for data, source in SOURCES.items()}
    lines = []
    for data, store in stores.items():
        for name in ("identity", "pca", "random_conv"):
            lines.append(one(data, store, {"name": name}, np.arange(len(store))))
            print(lines[-1])
    lines.append(two_workers("cifar10", stores["cifar10"], {"name": "random_conv"}))
    lines.append(own_features(stores["digits"]))
    path = (args.output / "disjoint_cnn.safetensors").absolute()
    if path.is_file():
        from disjoint_cnn import reserved_rows

        store = stores["cifar10"]
        lines.append(one("cifar10", store, {"name": "disjoint_cnn", "path": str(path)}, reserved_rows(store, [0])))
    columns = list(lines[0])
    with open(args.to / "encoders.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
