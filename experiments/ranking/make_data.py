"""Heart beats of ECG5000 as rows of 140 values, for study.yaml: runs/ranking/ecg5000.npz.

    python experiments/ranking/make_data.py     # a second

All 5,000 beats, of one person; the archive's split (500 to learn from, two of them of the rarest class) is not used.
The file is data of ``data=embeddings_npz`` and lies in no repository. The signals are read below $FEDIMB_DATA_DIR.
"""

import argparse
from pathlib import Path

import numpy as np

from fedimb.data.paths import find_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/ranking"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with np.load(find_data("signals/ecg5000.npz")) as file:
        x, y, names = file["x"], file["y"], file["class_names"]
    np.savez(args.output / "ecg5000.npz", x=x.reshape(len(x), -1), y=y, class_names=names)
    print(f"{len(x):,} beats, {x.shape[-1]} values, rows by class: {np.bincount(y).tolist()}")


if __name__ == "__main__":
    main()
