"""What local.precision=bf16 does to the recall of rare classes: the same small runs in both precisions.

    python experiments/precision/run.py            # writes rows.csv beside this file

A processor without bfloat16 refuses the setting; here it is made to compute it all the same, slowly: products of
bfloat16 numbers are exact in float32 and differ between processors in the order of their sums alone.
"""

import csv
import tempfile
from pathlib import Path

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar
from fedimb.training import precision

WORDS = (
    *("data=digits", "data.imbalance_factor=20", "partition=iid", "clients.count=5"),
    *("model=cnn4conv", "model.width=16"),
    *("rounds=20", "local.epochs=2", "local.lr=0.1", "evaluation.bootstrap=0", "calibration=[none,la_post]"),
    *("engine=inline", "tracking=none"),
)
SEEDS = range(4)


def main() -> None:
    """Run every seed in both precisions and write one line per run and calibration."""
    precision.cpu_has_bf16 = lambda: True  # type: ignore[assignment]
    lines = []
    for seed in SEEDS:
        for arithmetic in ("float32", "bf16"):
            with tempfile.TemporaryDirectory() as folder:
                words = [*WORDS, f"seed={seed}", f"local.precision={arithmetic}", f"output_dir={folder}"]
                config = validate(compose(words))
                result = launch(config, progress=ProgressBar(config.rounds, enabled=False), tracked=False)
                for row in result.rows:
                    scores = {name: row.final[name] for name in ("minority_recall", "macro_recall", "accuracy")}
                    lines.append({"label": row.label, "seed": seed, "precision": arithmetic} | scores)
                    print(lines[-1], flush=True)
    with (Path(__file__).parent / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
