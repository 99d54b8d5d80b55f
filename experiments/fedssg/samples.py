"""How good are the samples, and how much of them is memory? Over the generator's steps and the rows it learns from.

    python experiments/fedssg/samples.py                                    # writes samples.csv, prints its means
    python experiments/fedssg/samples.py --study embeddings.yaml --name samples_embeddings ...

The generator is the one of the study's runs (same seed, same D_0, same cache). Real rows that are neither in D_0 nor in
the test set are parted: of each class as many as D_0 has are ``fresh``, to compare with; up to 100 others teach the
independent classifier (an RBF SVM), which has seen neither D_0 nor a sample.

- agreement: samples whose class the independent classifier finds; agreement_fresh: of fresh real rows (the ceiling).
- nearest_ratio: samples whose nearest real row is in D_0 and not among as many fresh rows of their class; .5: none is
  remembered.
- close, close_fresh: samples, and fresh rows, that lie as near to a row of D_0 as the closest 5 % of D_0's rows lie to
  each other, in pixels (the screen of a run measures it in features).
- mia_auc: a fresh row against a row of D_0 of its class, told apart by the generator's loss (.5: not at all).
- precision, recall: of samples against fresh rows (k = 3), mean over classes.
- teach, teach_real: recall, over real rows in neither D_0 nor fresh, of the classifier taught by samples alone, and by
  D_0 alone.
"""

import argparse
import csv
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.data.public import public_rows
from fedimb.data.store import open_source
from fedimb.data.views import to_tensors
from fedimb.generation.examples import Examples
from fedimb.generation.export import MembershipAttack
from fedimb.generation.fidelity import precision_recall
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.quality import agreement, copy_gate, nearest
from fedimb.generation.training import Training
from fedimb.seeds import Stream, seed_int
from fedimb.study.design import read_study

HERE = Path(__file__).absolute().parent
PER_CLASS, TEACHERS = 60, 100
FIGURES = ("agreement", "agreement_fresh", "nearest_ratio", "close", "close_fresh", "mia_auc", "precision", "recall")
FIGURES = (*FIGURES, "teach", "teach_real")


def real_rows(federation: Federation, store_words: dict, n: int, seed: int) -> tuple[Examples, Examples]:
    """(fresh, teachers): real rows in neither D_0 nor the test set."""
    store = open_source(store_words)
    y, rng = np.asarray(store.y), np.random.default_rng(seed)
    free = np.setdiff1d(np.arange(len(y)), np.concatenate([federation.public, federation.test]))
    fresh, teachers = [], []
    for label in range(store.n_classes):
        rows = rng.permutation(free[y[free] == label])
        fresh.append(rows[:n])
        teachers.append(rows[n : n + TEACHERS])
    parts = []
    for rows in (np.concatenate(fresh), np.concatenate(teachers)):
        x, labels = to_tensors(store, rows, federation.scaling)
        sites = np.zeros(len(rows), np.int64) if store.sites is None else np.asarray(store.sites[rows], np.int64)
        parts.append(Examples(x, labels, torch.from_numpy(sites)))
    return parts[0], parts[1]


def learner(rows: Examples) -> SVC:
    """A classifier taught by rows."""
    return make_pipeline(StandardScaler(), SVC(C=10)).fit(rows.x.flatten(1).numpy(), rows.y.numpy())


def measured(config, public: int, steps: int, generator_words: dict) -> dict[str, float]:
    """The figures of one generator."""
    data = config.data | {"public": public}
    federation = prepare(data, config.partition, config.clients.count, config.seed)
    rows = public_rows(federation)
    known = Examples(rows.x, rows.y, rows.d)
    fresh, teachers = real_rows(federation, data["source"] | {"on_bad": data["on_bad"]}, public, config.seed)
    devices, classes = max(1, len(rows.domains)), federation.n_classes
    seed, shape, names = seed_int(config.seed, Stream.METHOD, 1), federation.input_shape, federation.class_names
    config = GeneratorConfig(generator_words, Training(steps=steps), classes, devices, shape, names, seed)
    cache = GeneratorCache(config, known)
    start = time.process_time()
    generator = cache.generator
    spent = time.process_time() - start
    y = torch.arange(classes).repeat_interleave(PER_CLASS)
    made = Examples(cache.samples(y, torch.arange(len(y)) % devices, seed), y, torch.arange(len(y)) % devices)
    flat, d_0, other = (part.x.flatten(1) for part in (made, known, fresh))
    independent, asked = learner(teachers), MembershipAttack(generator, config.seed)
    scores = [asked(p.x.numpy(), p.y.numpy(), p.d.numpy()) for p in (known, fresh)]
    nearer, auc, fit = [], [], []
    for label in range(classes):
        own = [flat[made.y == label], d_0[known.y == label], other[fresh.y == label]]
        nearer.append(float((nearest(own[0], own[1]) < nearest(own[0], own[2])).double().mean()))
        members = [s[p.y.numpy() == label] for s, p in zip(scores, (known, fresh), strict=True)]
        auc.append(roc_auc_score([1] * len(members[0]) + [0] * len(members[1]), np.concatenate(members)))
        fit.append(precision_recall(own[2], own[0]))

    def said(rows: Examples) -> float:
        guess = torch.from_numpy(independent.predict(rows.x.flatten(1).numpy()))
        return agreement(guess, rows.y, classes).overall

    def taught(by: Examples) -> float:
        return float((learner(by).predict(teachers.x.flatten(1).numpy()) == teachers.y.numpy()).mean())

    values = (said(made), said(fresh), np.mean(nearer))
    values += tuple(
        1 - float(copy_gate(part, p.y, d_0, known.y, classes).double().mean())
        for part, p in ((flat, made), (other, fresh))
    )
    values += (np.mean(auc), *np.mean(fit, axis=0), taught(made), taught(known))
    return dict(zip(FIGURES, values, strict=True)) | {"train_cpu_s": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="devices.yaml")
    parser.add_argument("--name", default="samples")
    parser.add_argument("--public", type=int, nargs="+", default=[30])
    parser.add_argument("--steps", type=int, nargs="+", default=[250, 500, 940, 1500])
    parser.add_argument("--generator", type=json.loads, default={}, help='as {"name": "table_flow", "guidance": 2}')
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--to", type=Path, default=HERE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "few rows to train")
    base = read_study(HERE / args.study).base
    lines = []
    with (args.to / f"{args.name}.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, ["public", "steps", "seed", *FIGURES, "train_cpu_s"], lineterminator="\n")
        out.writeheader()
        for seed in range(args.seeds):
            config = validate(compose([*base, f"seed={seed}"]))
            for public in args.public:
                for steps in args.steps:
                    about = {"public": public, "steps": steps, "seed": seed}
                    line = about | measured(config, public, steps, args.generator)
                    lines.append(line)
                    out.writerow({k: round(float(v), 4) if isinstance(v, float) else v for k, v in line.items()})
                    file.flush()
    print("public steps " + " ".join(f"{name:>15}" for name in FIGURES))
    for public in args.public:
        for steps in args.steps:
            own = [line for line in lines if (line["public"], line["steps"]) == (public, steps)]
            means = [np.mean([line[name] for line in own]) for name in FIGURES]
            print(f"{public:6d} {steps:5d} " + " ".join(f"{value:15.3f}" for value in means))


if __name__ == "__main__":
    main()
