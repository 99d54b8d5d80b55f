"""How well the class vectors that SCOPE gets from the clients' rows tell classes apart, after a warm-up and without.

    python experiments/scope/make_data.py
    python experiments/scope/warm.py      # half a minute; writes warm.csv beside this file

The federations of study.yaml. Per seed and class: recall on the test set of the nearest class vector, where vectors are
the clients' own (long-tailed) class means: of the strong features (``means`` in encoders.yaml), and of the features of
the federation's MLP after the five rounds of warm-up (``warm``). `make_data.py` gives those of other encoders.
"""

import csv
from pathlib import Path

import numpy as np
import torch

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.prepare import prepare
from fedimb.data.store import open_source
from fedimb.data.views import to_tensors
from fedimb.encoders.checks import unit_rows
from fedimb.rundir.model_file import load_model
from fedimb.selection.prototypes import class_prototypes
from fedimb.study.design import read_study
from fedimb.study.experiments import arguments, parser_of, run_whole

WARMUP = 5
SEEDS = 12


def recalls(train: torch.Tensor, y: torch.Tensor, test: torch.Tensor, truth: torch.Tensor, classes: int) -> np.ndarray:
    """[C] recall of the nearest class vector by cosine; NaN for a class the test set lacks."""
    guess = (unit_rows(test) @ class_prototypes(train, y, classes).T).argmax(1)
    hits, rows = (np.bincount(part.numpy(), minlength=classes).astype(float) for part in (truth[guess == truth], truth))
    return np.divide(hits, rows, out=np.full(classes, np.nan), where=rows > 0)


def main() -> None:
    args = arguments(parser_of(__file__, __doc__))
    torch.set_num_threads(1)
    base = read_study(Path(__file__).absolute().parent / "study.yaml").base
    words = [*base, f"rounds={WARMUP}", "study=warm", f"output_dir={args.output}", "engine=inline"]
    configs = [validate(compose([*words, f"seed={seed}"])) for seed in range(SEEDS)]
    lines: list[tuple[str, int, str, int, float]] = []
    for config, result in zip(configs, run_whole(configs), strict=True):
        federation = prepare(config.data, config.partition, config.clients.count, config.seed)
        store = open_source(config.data["source"] | {"on_bad": config.data["on_bad"]})
        (x, y), (x_test, truth) = (
            to_tensors(store, rows) for rows in (np.concatenate(list(federation.train)), federation.test)
        )
        rank = np.argsort(np.argsort(-np.bincount(y.numpy(), minlength=store.n_classes), kind="stable"))
        with torch.no_grad():
            model = load_model(result.folder).classifier
            warm = model.features(x), model.features(x_test)
        for encoder, (ours, theirs) in {"means": (x, x_test), "warm": warm}.items():
            found = recalls(ours, y, theirs, truth, store.n_classes)
            for name, at, recall in zip(store.class_names, rank, found, strict=True):
                lines.append((encoder, config.seed, name, int(at), round(float(recall), 4)))
    with (args.to / "warm.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["encoder", "seed", "class", "rank", "recall"])
        out.writerows(lines)
    for encoder in ("means", "warm"):
        own = [line for line in lines if line[0] == encoder]
        thirds = [
            np.mean([li[4] for li in own if low <= li[3] < high]) for low, high in ((0, 10), (0, 3), (3, 7), (7, 10))
        ]
        print(encoder, "nearest prototype: all, head 3, mid 4, tail 3:", *(f"{value:.3f}" for value in thirds))


if __name__ == "__main__":
    main()
