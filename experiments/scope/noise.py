"""Is SCOPE's stage 1 a filter for wrong labels, or does it delete the rare classes?

    python experiments/scope/make_data.py
    python experiments/scope/noise.py        # half a minute; writes noise.csv and noise.svg beside this file

The federations of study.yaml; every client then gets 20 % of its labels wrong, each drawn evenly from the other
classes. Scores only, nothing is trained. Stage 1 drops the p_l of a client's rows with the largest AS; with p_l = .2 a
perfect filter drops what is wrong and nothing else. Arms: class vectors from outside (``text``: they saw no wrong
label) or from the clients' own labels (``clients``); z-scores by the federation's classes or by the client's own
(``no_global_profile``); and no wrong label at all, where every row dropped is a loss.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.prepare import prepare
from fedimb.data.store import open_source
from fedimb.data.views import to_tensors
from fedimb.encoders.checks import unit_rows
from fedimb.encoders.embed import open_encoder
from fedimb.selection.moments import class_moments, pool
from fedimb.selection.profile import global_profile
from fedimb.selection.projections import project
from fedimb.selection.prototypes import prototype_sums, shared_prototypes
from fedimb.selection.scope import Variant, prune
from fedimb.study.design import read_study

HERE = Path(__file__).absolute().parent
FLIPPED = 0.2
SEEDS = 12
Labels = list[torch.Tensor]


def flip(labels: torch.Tensor, share: float, classes: int, rng: np.random.Generator) -> torch.Tensor:
    """Labels [n] int64 of which round(share n) are moved to another class, evenly."""
    wrong = rng.permutation(len(labels))[: round(share * len(labels))]
    noisy = labels.clone()
    noisy[wrong] = (labels[wrong] + torch.from_numpy(rng.integers(1, classes, len(wrong)))) % classes
    return noisy


def stage_one(
    points: Labels, labels: Labels, vectors: torch.Tensor, p_l: float, variant: Variant
) -> list[torch.Tensor]:
    """Per client: [n] bool of the rows that stage 1 drops."""
    scores = [project(x, y, vectors) for x, y in zip(points, labels, strict=True)]
    profile = global_profile(pool([class_moments(s, y, len(vectors)) for s, y in zip(scores, labels, strict=True)]))
    dropped = []
    for score, y in zip(scores, labels, strict=True):
        gone = torch.zeros(len(y), dtype=torch.bool)
        gone[prune(score, y, profile, p_f=0, p_l=p_l, variant=variant).anomalous] = True
        dropped.append(gone)
    return dropped


def arms(
    points: Labels, clean: Labels, noisy: Labels, text: torch.Tensor
) -> Iterator[tuple[tuple[object, ...], Labels]]:
    """((flipped, class vectors, variant, p_l), what each client drops)."""
    for flipped, labels in ((FLIPPED, noisy), (0.0, clean)):
        sums = torch.stack([prototype_sums(x, y, len(text)) for x, y in zip(points, labels, strict=True)])
        for origin, vectors in (("text", text), ("clients", shared_prototypes(sums))):
            for variant in ("full", "no_global_profile"):
                for p_l in (0.1, 0.2):
                    key = (flipped, origin, variant, p_l)
                    yield key, stage_one(points, labels, vectors, p_l, variant)


def draw(table: list[dict[str, object]], classes: int, path: Path) -> None:
    """Rows lost to stage 1 by class, head to tail, mean over seeds."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (share, p_l) in zip(figure.subplots(1, 2, sharey=True), ((FLIPPED, 0.2), (0.0, 0.1)), strict=True):
        for origin, style in (("text", "o-"), ("clients", "s--")):
            rows = [r for r in table if (r["flipped"], r["vectors"], r["p_l"]) == (share, origin, p_l)]
            rows = [r for r in rows if r["variant"] == "full"]
            axes.plot(range(classes), lost(rows, "right_dropped", "right", classes), style, color="#4a7fa7",
                      label=f"right labels, vectors of {origin}")  # fmt: skip
            if share:
                axes.plot(range(classes), lost(rows, "wrong_dropped", "wrong", classes), style, color="#c8501e",
                          label=f"wrong labels, vectors of {origin}")  # fmt: skip
        axes.axhline(p_l, color="#9a9a9a", lw=0.8)
        axes.set(
            title=f"{share:.0%} of labels wrong, p_l {p_l}", xlabel="class by its label, head to tail", ylim=(0, 1)
        )
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("share of rows dropped by stage 1")
    with rc_context({"svg.hashsalt": "fedimb"}):  # same figure, same bytes
        figure.savefig(path, metadata={"Date": None})


def lost(rows: list[dict[str, object]], dropped: str, of: str, classes: int) -> NDArray[np.float64]:
    """[C] share dropped, over all seeds' rows; NaN where there was none."""
    found = np.zeros((2, classes))
    for row in rows:
        found[:, int(str(row["rank"]))] += [int(str(row[dropped])), int(str(row[of]))]
    return np.divide(found[0], found[1], out=np.full(classes, np.nan), where=found[1] > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = read_study(HERE / "study.yaml").base
    table: list[dict[str, object]] = []
    for seed in range(SEEDS):
        config = validate(compose([*base, f"seed={seed}"]))
        federation = prepare(config.data, config.partition, config.clients.count, seed)
        store = open_source(config.data["source"] | {"on_bad": config.data["on_bad"]})
        encoder = open_encoder({"name": "precomputed_text", "path": config.data["source"]["path"]}, store)
        text = encoder.class_vectors(store.class_names)
        assert text is not None  # make_data.py writes them
        parts = [to_tensors(store, rows) for rows in federation.train]
        points, clean = [unit_rows(x) for x, _ in parts], [y for _, y in parts]
        classes, rng = store.n_classes, np.random.default_rng([seed, 20])
        noisy = [flip(y, FLIPPED, classes, rng) for y in clean]
        rank = np.argsort(np.argsort(-np.bincount(torch.cat(clean).numpy(), minlength=classes), kind="stable"))
        truth = torch.cat(clean)
        for (flipped, origin, variant, p_l), dropped in arms(points, clean, noisy, unit_rows(text)):
            given, gone = torch.cat(noisy if flipped else clean), torch.cat(dropped)
            wrong = given != truth
            for label in range(classes):
                own = given == label
                counts = {
                    "right": own & ~wrong,
                    "right_dropped": own & ~wrong & gone,
                    "wrong": own & wrong,
                    "wrong_dropped": own & wrong & gone,
                }
                line = {"seed": seed, "flipped": flipped, "vectors": origin, "variant": variant, "p_l": p_l}
                line |= {"rank": int(rank[label]), "class": store.class_names[label]}
                table.append(line | {name: int(mask.sum()) for name, mask in counts.items()})
    with (args.to / "noise.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(table)
    draw(table, 10, args.to / "noise.svg")
    report(table)


def report(table: list[dict[str, object]]) -> None:
    """Precision, and what is lost by thirds of classes."""
    keys = sorted({(r["flipped"], r["vectors"], r["variant"], r["p_l"]) for r in table}, key=str)
    print("wrong vectors variant p_l | precision | of wrong: head mid tail | of right: head mid tail")
    for key in keys:
        rows = [r for r in table if (r["flipped"], r["vectors"], r["variant"], r["p_l"]) == key]
        wrong = sum(int(str(r["wrong_dropped"])) for r in rows)
        right = sum(int(str(r["right_dropped"])) for r in rows)
        groups = [[r for r in rows if low <= int(str(r["rank"])) < high] for low, high in ((0, 3), (3, 7), (7, 10))]
        shares = [
            np.nansum([int(str(r[f"{kind}_dropped"])) for r in part]) / max(1, sum(int(str(r[kind])) for r in part))
            for kind in ("wrong", "right")
            for part in groups
        ]
        print(*key, "|", f"{wrong / max(1, wrong + right):.3f}", "|", *(f"{s:.3f}" for s in shares))


if __name__ == "__main__":
    main()
