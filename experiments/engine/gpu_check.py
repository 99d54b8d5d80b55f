"""Do runs on a GPU give what runs on the CPU give, and how long do they take? One script, under ten minutes.

    make gpu-check
    python experiments/engine/gpu_check.py --to experiments/engine/gpu_check.csv

Three parts, a table on the screen, a line of CSV as soon as each case ends:

same     One round of whole-batch steps, in which the order of the rows does not matter, so that CPU and GPU compute the
         same mathematics from the same weights: the largest difference of a weight, relative to the largest weight that
         moved. More than 0.001 fails (float32 sums in another order give some 0.00001; TF32 is off).
alike    Ordinary runs over three seeds. A GPU draws other numbers, so only their macro recall is set side by side.
creff    Seconds of a round of CReFF's published protocol (experiments/literature/creff_cifar10.yaml) with FedAvg, CCVR
         (whose head needs a model without BatchNorm) and CReFF: a run of three rounds less one of one, over two. Where
         cifar10.zip is not in $FEDIMB_DATA_DIR, random images of its size stand in, which take the same time.

Exit code 0: all cases of ``same`` agree; 1: one does not, or a case failed; 2: there is no GPU. What does not fit into
``--minutes`` is left out and named. ``--device cpu`` runs the cases twice on the CPU, to try the script.
"""

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import fedimb
from fedimb.data.paths import VARIABLE
from fedimb.models.base import parameters_of
from fedimb.study.design import read_study

CREFF = Path(__file__).parents[1] / "literature" / "creff_cifar10.yaml"
PLAIN = "engine=inline tracking=none evaluation.bootstrap=0 checkpoint.every=1000"
WHOLE = f"{PLAIN} data=digits rounds=1 clients.count=4 local.batch_size=100000 local.epochs=5 local.lr=0.05"
SAME = {
    "mlp, one by one": "model=mlp engine.trainer=loop",
    "mlp, stacked": "model=mlp engine.trainer=stacked",
    "cnn4conv": "model=cnn4conv",
    "resnet8, BatchNorm": "model=resnet8 model.width=16 model.norm=batch local.epochs=2",
    "nesterov, decay, clipping": "local.momentum=0.9 local.nesterov=true local.weight_decay=0.01 local.max_grad_norm=1",
    "adam, label smoothing": "local.optimizer=adam local.lr=0.001 local.label_smoothing=0.1",
    "balanced softmax": "loss=balanced_softmax",
    "FedVLS": "loss=fedvls aggregator=distil aggregator.temperature=1.0 aggregator.absent_only=true",
    "BalanceFL's loss": "loss=batch_restricted_ce",
    "SCAFFOLD": "aggregator=scaffold rounds=2",
    "FedNH": "strategy=fednh model.head=prototype strategy.fednh.min_count=1",
    "CReFF": "strategy=creff strategy.creff.min_count=1 strategy.creff.head_epochs=5",
}
ALIKE = {
    "FedAvg, mlp": "model=mlp",
    "RUCR, cnn4conv": "model=cnn4conv strategy=rucr strategy.rucr.min_count=1",
    "FedYoYo, cnn4conv": "model=cnn4conv loss=dla strategy=fedyoyo strategy.fedyoyo.min_count=1",
    "FairFAL": "model=mlp strategy=fairfal strategy.fairfal.cycles=2",
}
ROUNDS = {
    "FedAvg": "",
    "CCVR": "strategy=public strategy.public.use=ccvr strategy.public.nonnegative=true model.norm=group",
    "CReFF": "strategy=creff",
}
FIELDS = ("part", "case", "measure", "cpu", "gpu", "difference", "verdict")
LARGEST = 1e-3


def same(words: str, device: str, folder: str) -> dict[str, object]:
    """One case of ``same``."""
    weights = [parameters_of(fedimb.run(f"{WHOLE} {words} {where}").model) for where in _places(device, folder)]
    still = f"local.lr=1.0e-30 engine.device=cpu output_dir={folder}/still"
    before = parameters_of(fedimb.run(f"{WHOLE} {words} {still}").model)
    moved = max(float(np.abs(weights[0][name] - before[name]).max()) for name in before)
    apart = max(float(np.abs(weights[0][name] - weights[1][name]).max()) for name in before)
    share = apart / moved if moved else float("nan")
    verdict = "agrees" if share <= LARGEST else "DIFFERS"
    return {"measure": "weights", "cpu": f"moved {moved:.3g}", "difference": f"{share:.2g}", "verdict": verdict}


def alike(words: str, device: str, folder: str) -> dict[str, object]:
    """One case of ``alike``."""
    common = f"{PLAIN} data=digits rounds=10 clients.count=5 {words}"
    found = [
        [float(fedimb.run(f"{common} seed={seed} {where}").metrics["macro_recall"]) for seed in range(3)]
        for where in _places(device, folder)
    ]
    cpu, gpu = (f"{np.mean(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in found)
    apart = float(np.mean(found[1]) - np.mean(found[0]))
    return {"measure": "macro recall", "cpu": cpu, "gpu": gpu, "difference": f"{apart:+.3f}", "verdict": "to be read"}


def creff(words: str, device: str, folder: str) -> dict[str, object]:
    """One case of ``creff``: seconds of a round, on the GPU alone."""
    study = read_study(CREFF)
    base = [*study.base, *study.setting_words["IF 100"], "evaluation.every=1000", "checkpoint.every=1000"]
    quoted = " ".join(f"'{word}'" for word in [*base, "engine=inline", *_images(folder)])
    seconds = {}
    for run, rounds in enumerate((1, 1, 3)):  # the first reads and keeps the data, and starts the GPU
        started = time.perf_counter()
        fedimb.run(f"{quoted} {words} rounds={rounds} engine.device={device} output_dir={folder}/{run}")
        seconds[rounds] = time.perf_counter() - started
    each = (seconds[3] - seconds[1]) / 2
    return {"measure": "s a round", "gpu": f"{each:.1f}", "verdict": f"200 rounds: {200 * each / 3600:.1f} h"}


def _places(device: str, folder: str) -> list[str]:
    return [f"engine.device={one} output_dir={folder}/{i}" for i, one in enumerate(("cpu", device))]


def _images(folder: str) -> list[str]:
    """Words for random images where CIFAR-10 is missing."""
    if (Path(os.environ.get(VARIABLE, ".")) / "cifar10.zip").exists():
        return []
    path = Path(folder) / "random.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        arrays = {f"{part}_images": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in _SIZES.items()}
        arrays |= {f"{part}_labels": np.arange(n)[:, None] % 10 for part, n in _SIZES.items()}
        np.savez(path, **arrays)
    return ["data.source={name: npz, path: " + str(path) + "}"]


_SIZES = {"train": 50000, "val": 10, "test": 1000}
PARTS: dict[str, tuple[Callable[[str, str, str], dict[str, object]], dict[str, str]]] = {
    "same": (same, SAME),
    "creff": (creff, ROUNDS),
    "alike": (alike, ALIKE),
}


def check(device: str, minutes: float, to: Path, parts: list[str]) -> int:
    """Run the cases, print and write their rows: the exit code."""
    torch.backends.cudnn.allow_tf32 = False
    ends, bad, left_out = time.monotonic() + 60 * minutes, False, []
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, to.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, restval="")
        table.writeheader()
        for part in parts:
            measure, cases = PARTS[part]
            for number, (case, words) in enumerate(cases.items()):
                if time.monotonic() > ends:
                    left_out.append(f"{part}: {case}")
                    continue
                try:
                    found = measure(words, device, f"{folder}/{part}{number}")
                except Exception as error:  # the table says so, and the other cases are still worth their time
                    found = {"verdict": f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
                row = {"part": part, "case": case, **found}
                bad = bad or str(found["verdict"]).startswith(("DIFFERS", "FAILED"))
                table.writerow(row)
                file.flush()
                print("  ".join(f"{row.get(key, '')!s:<26}" for key in FIELDS).rstrip(), flush=True)
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU twice, which says nothing about a GPU"
    print(f"on {name}, torch {torch.__version__}; {to}")
    if left_out:
        print(f"left out for time: {'; '.join(left_out)}")
    return int(bad)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("runs/gpu_check.csv"), help="the CSV")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="no case starts later")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu-check: torch finds no GPU here. Run it on a machine with an NVIDIA GPU and a torch built for CUDA "
            "(pip install torch --index-url https://download.pytorch.org/whl/cu126); --device cpu tries the script",
            file=sys.stderr,
        )
        return 2
    return check(args.device, args.minutes, args.to, args.parts)


if __name__ == "__main__":
    raise SystemExit(main())
