"""Train `encoder=disjoint_cnn`: a cnn4conv on the CIFAR-10 images that the long tail leaves over.

    python experiments/encoders/disjoint_cnn.py               # about five minutes on one core
    python experiments/encoders/disjoint_cnn.py --seeds 0 1   # disjoint from the tails of both seeds: fewer images

A tail with n_max 2,500 draws at most 2,500 of the 5,000 training images of a class, by a permutation that depends on
the run's seed and not on the imbalance. Those images of each seed given are reserved; all others train the encoder, but
for copies of a reserved or test image. With more than a few seeds nothing is left, so for a study over many seeds keep
seed 0 and draw every seed's tail from the reserved images themselves: reserved.npz holds their embeddings and the test
set's, for ``data=embeddings_npz``.

Writes disjoint_cnn.safetensors and reserved.npz into --output, table.txt into --to.
"""

import time
from pathlib import Path

import numpy as np
import torch

from fedimb import registry
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.longtail import keep_rows
from fedimb.data.prepare import prepare
from fedimb.data.store import Store, open_source
from fedimb.data.views import to_tensors
from fedimb.encoders.checks import unit_rows
from fedimb.encoders.disjoint_cnn import DisjointCnn, digests, write_encoder
from fedimb.encoders.embed import embed
from fedimb.models.cnn4conv import CNN4Conv
from fedimb.seeds import Stream, numpy_rng, seed_int, torch_generator
from fedimb.selection.prototypes import class_prototypes
from fedimb.study.experiments import arguments, parser_of, publish
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

N_MAX = 2500
MODEL = {"width": 64, "norm": "group"}
BATCH = 32
LAST = 0.2  # of the epochs, at a tenth of the learning rate


def reserved_rows(store: Store, seeds: list[int]) -> np.ndarray:
    """Sorted int64: every training row that a tail of one of the seeds may draw."""
    assert store.official_test is not None
    rest, y = np.flatnonzero(~store.official_test), np.asarray(store.y)
    most = np.full(store.n_classes, N_MAX)
    return np.unique(np.concatenate([keep_rows(rest, y, most, numpy_rng(seed, Stream.TAIL, 1)) for seed in seeds]))


def training_rows(store: Store, reserved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and the `digests` of their images: no copy of an image that is reserved or tested on."""
    assert store.official_test is not None
    kept = np.union1d(reserved, np.flatnonzero(store.official_test))
    left = np.setdiff1d(np.arange(len(store)), kept)
    ours, theirs = (digests(to_tensors(store, rows)[0]) for rows in (left, kept))
    unique = ~np.isin(ours, theirs)
    return left[unique], ours[unique]


def check_disjoint(trained: np.ndarray, seeds: list[int]) -> None:
    """Cut the federations these seeds really get, at every imbalance of the protocols, and look."""
    for seed in seeds:
        for imbalance in (1, 10, 20, 50, 100):
            words = ["data=cifar10", f"data.imbalance_factor={imbalance}", f"seed={seed}"]
            config = validate(compose(words))
            federation = prepare(config.data, config.partition, 10, seed)
            used = np.concatenate([*federation.train, *federation.validation, federation.test])
            if common := len(np.intersect1d(trained, used)):
                raise SystemExit(f"{common} training images of the encoder are used by seed {seed}, IF {imbalance}")


def train(store: Store, rows: np.ndarray, epochs: int) -> CNN4Conv:
    """SGD with momentum, flips and shifts, most epochs at .05 and the last at .005."""
    torch.manual_seed(seed_int(0, Stream.INIT))
    model = CNN4Conv(store.n_classes, store.input_shape, MODEL["width"], MODEL["norm"])
    x, y = to_tensors(store, rows)
    given = {"input_shape": store.input_shape}
    shown = tuple(registry.build("augmentation", name, given) for name in ("flip", "pad_crop"))
    loss = CrossEntropy()
    last = max(1, round(LAST * epochs))
    for phase, (part, lr) in enumerate(((epochs - last, 0.05), (last, 0.005))):
        steps = part * -(-len(y) // BATCH)
        spec = TrainSpec("train", steps, BATCH, "sgd", lr, 0.9, 5e-4, loss, Shuffle(), augmentations=shown)
        done = train_locally(model, x, y, spec, torch_generator(0, Stream.TRAIN, phase))
        print(f"{part} epochs at {lr}: mean loss {done.loss:.3f}")
    return model.eval()


def nearest_class(means: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy of the class vector with the largest cosine."""
    return float((embeddings @ unit_rows(means).T).argmax(1).eq(labels).double().mean())


def main() -> None:
    parser = parser_of(Path(__file__), __doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="runs' seeds to be disjoint from")
    parser.add_argument("--epochs", type=int, default=10)
    args = arguments(parser)
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    store = open_source({"name": "image_folder", "path": "cifar10.zip"})
    reserved = reserved_rows(store, args.seeds)
    rows, seen = training_rows(store, reserved)
    check_disjoint(rows, args.seeds)

    started = time.process_time()
    model = train(store, rows, args.epochs)
    seconds = time.process_time() - started
    with torch.no_grad():
        mine = torch.cat([model.features(to_tensors(store, part)[0]) for part in np.array_split(rows, len(rows) // 64)])
    labels = torch.from_numpy(np.asarray(store.y)[rows])
    means = class_prototypes(mine, labels, store.n_classes)
    facts = MODEL | {
        "class_names": list(store.class_names),
        "input_shape": list(store.input_shape),
        "seeds": args.seeds,
        "epochs": args.epochs,
        "n_max": N_MAX,
    }
    path = (args.output / "disjoint_cnn.safetensors").absolute()
    write_encoder(path, model, facts, means, seen)

    encoder = DisjointCnn(str(path), input_shape=store.input_shape)
    assert store.official_test is not None
    test = np.flatnonzero(store.official_test)
    kept = np.sort(np.concatenate([reserved, test]))
    embeddings, y = embed(encoder, store, kept), np.asarray(store.y)[kept]
    is_test = np.isin(kept, test)
    np.savez(
        args.output / "reserved.npz",
        x=embeddings.numpy(),
        y=y,
        class_names=np.array(store.class_names),
        class_vectors=encoder.class_vectors(store.class_names).numpy(),
        test=is_test,
    )
    unit, of_test = unit_rows(embeddings), torch.from_numpy(is_test)
    labels = torch.from_numpy(y)
    with torch.no_grad():
        own = float(model.head(embeddings[of_test]).argmax(1).eq(labels[of_test]).double().mean())
    lines = [
        f"training images {len(rows)}, reserved {len(reserved)} (seeds {args.seeds}), epochs {args.epochs}, "
        f"{seconds:.0f} cpu-s on one thread",
        f"test accuracy: own head {own:.3f}, nearest of its class vectors "
        f"{nearest_class(means, unit[of_test], labels[of_test]):.3f}",
        f"reserved images: nearest of its class vectors {nearest_class(means, unit[~of_test], labels[~of_test]):.3f}",
    ]
    publish("\n".join(lines), args.to)


if __name__ == "__main__":
    main()
