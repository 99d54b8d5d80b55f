"""Does the export gate see copies that were moved, and how often does it refuse a generator that copies nothing?

    python experiments/fedssg/gate_moves.py             # appends to gate_moves.csv; continues where it stopped
    python experiments/fedssg/gate_moves.py --table     # gate_moves_table.txt

MNIST, 28 x 28 (mnist.npz in $FEDIMB_DATA_DIR): a class has 20 or 70 training records, 100 holdout records and 200
samples, all real images. Samples are fresh images (every ``fail`` is wrong), or a tenth of them are copies of training
records (the rest is fresh): rolled by 3 pixels, turned by 40 degrees, zoomed by 1.3 (both between two views), inverted,
mirrored; turned and then rolled, which is no single move; or shifted by 6 pixels, further than the gate looks. No
membership attack, ``min_count`` 1: the tests of distances decide alone.

Gates: ``pixels``, distances of records alone (as until 0.1.0); besides these ``random_conv``, an encoder's features as
shipped; ``random_conv_1`` (only with --gates), the same averaged over the whole image; ``moved``, the smallest
distance to any view of a record (`fedimb.privacy.audit.moved`), the default for images. Intervals are Wilson's, 95 %.
"""

import argparse
import csv
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from leakage import HERE
from numpy.typing import NDArray
from scipy import ndimage

from fedimb import registry
from fedimb.evaluation.intervals import wilson
from fedimb.privacy.audit.gate import Batch, Features, GateSettings, audit

Rows = NDArray[np.float32]
HOLDOUT, SAMPLES, COUNTS, SHARES = 100, 200, (20, 70), (0.1,)
GATES = ("pixels", "random_conv", "random_conv_1", "moved")
FIELDS = ("gate", "made", "share", "records", "seed", "class", "state", "reasons")


def turned(x: Rows, angle: float = 40.0) -> Rows:
    return np.asarray(ndimage.rotate(x, angle, axes=(2, 3), reshape=False, order=1, mode="nearest"), np.float32)


def zoomed(x: Rows, by: float = 1.3) -> Rows:
    size = x.shape[2]
    large = ndimage.zoom(x, (1, 1, by, by), order=1)
    start = (large.shape[2] - size) // 2
    return np.asarray(large[:, :, start : start + size, start : start + size], np.float32)


MOVES: dict[str, Callable[[Rows], Rows]] = {
    "as they are": lambda x: x,
    "rolled 3": lambda x: np.roll(x, 3, 3),
    "turned 40": turned,
    "zoomed 1.3": zoomed,
    "inverted": lambda x: 1 - x,
    "mirrored": lambda x: x[..., ::-1],
    "turned 40, rolled 3": lambda x: np.roll(turned(x), 3, 3),
    "shifted 6": lambda x: np.asarray(ndimage.shift(x, (0, 0, 0, 6), order=0), np.float32),
}


def features(gate: str) -> Features | None:
    if not gate.startswith("random_conv"):
        return None
    arguments = {"grid": 1} if gate.endswith("_1") else {}
    encoder = registry.build("encoder", "random_conv", {"input_shape": (1, 28, 28)}, **arguments)
    return lambda x: encoder.encode(torch.from_numpy(np.asarray(x, np.float32))).numpy()


def images(label: int) -> Rows:
    with np.load(Path(os.environ["FEDIMB_DATA_DIR"]) / "mnist.npz") as file:
        x, y = file["train_images"], file["train_labels"]
    return np.asarray(x[y.ravel() == label].reshape(-1, 1, 28, 28) / 255, np.float32)


def one(gate: str, made: str, share: float, records: int, seed: int, label: int, rows: Rows) -> dict[str, object]:
    """A line of the table."""
    rng = np.random.default_rng([seed, label, records])
    drawn = rows[rng.permutation(len(rows))]
    train, holdout = drawn[:records], drawn[records : records + HOLDOUT]
    samples = drawn[records + HOLDOUT : records + HOLDOUT + SAMPLES].copy()
    if made != "fresh":
        copies = round(share * SAMPLES)
        copied = MOVES[made](train[rng.integers(records, size=copies)])
        samples[:copies] = copied + 0.01 * rng.normal(size=copied.shape).astype(np.float32)
    settings = GateSettings(min_count=1, moved=gate == "moved", bootstrap=1)
    batches = (Batch(x, np.zeros(len(x), np.int64)) for x in (samples, train, holdout))
    found = audit(*batches, settings, rng, features=features(gate)).verdicts[0]
    values = (gate, made, share, records, seed, label, found.state, "; ".join(found.reasons))
    return dict(zip(FIELDS, values, strict=True))


def table(path: Path, to: Path) -> None:
    """Shares of classes that may not leave, per arm and gate."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    text = ["found as leaking (fail), and in brackets undecidable, of classes; 95 % interval of the first"]
    gates = [gate for gate in GATES if any(one["gate"] == gate for one in lines)]
    text += ["samples                share  records | " + "".join(gate.ljust(34) for gate in gates).rstrip()]
    for made, share, records in dict.fromkeys((one["made"], one["share"], one["records"]) for one in lines):
        cells = []
        for gate in gates:
            own = [one["state"] for one in lines if (one["gate"], one["made"], one["share"], one["records"])
                   == (gate, made, share, records)]  # fmt: skip
            if not own:
                cells.append("-".ljust(34))
                continue
            fails = own.count("fail")
            low, high = wilson(fails, len(own))
            cells.append(f"{fails} of {len(own)} [{low:.2f}, {high:.2f}] ({own.count('undecidable')})".ljust(34))
        text.append(f"{made:22}{float(share):6.1f}{records:>9} | " + "".join(cells).rstrip())
    (to / "gate_moves_table.txt").write_text("\n".join(text) + "\n")
    print("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--seeds", type=int, default=1, help="of copies; each has ten classes")
    parser.add_argument("--fresh-seeds", type=int, default=4)
    parser.add_argument("--gates", nargs="+", choices=GATES, default=["pixels", "random_conv", "moved"])
    parser.add_argument("--table", action="store_true", help="only write the table of what has been measured")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.to / "gate_moves.csv"
    if not args.table:
        if not path.exists():
            path.write_text(",".join(FIELDS) + "\n")
        with path.open(newline="") as file:
            done = {tuple(line[name] for name in FIELDS[:6]) for line in csv.DictReader(file)}
        for seed in range(max(args.seeds, args.fresh_seeds)):
            arms = [("fresh", 0.0)] * (seed < args.fresh_seeds)
            arms += [*itertools.product(MOVES, SHARES)] * (seed < args.seeds)
            for label in range(10):
                rows, start = images(label), time.monotonic()
                for (made, share), records, gate in itertools.product(arms, COUNTS, args.gates):
                    key = (gate, made, share, records, seed, label)
                    if tuple(map(str, key)) in done:
                        continue
                    line = one(*key, rows)
                    with path.open("a", newline="") as file:
                        csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(line)
                print(f"seed {seed}, class {label}: {time.monotonic() - start:.0f} s", flush=True)
    table(path, args.to)


if __name__ == "__main__":
    main()
