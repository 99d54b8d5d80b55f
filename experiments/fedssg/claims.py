"""The questions put to FedSSG, each as one paired comparison on the same seeds; what was made; the axis |D_0|.

    fedimb compare experiments/fedssg/devices.yaml            # and embeddings.yaml
    python experiments/fedssg/claims.py     # writes claims.csv, public.svg and, from the runs, made.csv

Scores are read from the tables beside this file (rows.csv, embeddings_rows.csv, public_rows.csv,
embeddings_public_rows.csv).

Effect: Hodges-Lehmann with its interval; p: Wilcoxon, Holm within a family and score; equal: two one-sided t tests
within .02. Families: `free` (against what needs no row at the server), `making` (is it the generator, or having more
rows of rare classes at all), `plan` (what is made, and how much), `rows` (against plainer uses of the same rows).
"""

import csv
import json
from pathlib import Path

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.significance import holm, paired
from fedimb.study.experiments import arguments, parser_of
from fedimb.study.folders import collect
from fedimb.study.results import StudyResults

SCORES = ("macro_recall", "minority_recall")
MARGIN = 0.02
OFF = " w_0 off"
FAMILIES = {
    "free": [
        ("fedssg", "fedavg"),
        ("fedssg", "la_post"),
        ("fedssg", "uniform+la_post"),
        ("fedssg+la_post", "uniform+la_post"),
        ("fedssg", "ccvr"),
        (f"fedssg{OFF}", "fedavg"),
        (f"fedssg{OFF}", "la_post"),
    ],
    "making": [
        ("fedssg", "fedssg:none"),
        ("fedssg+la_post", "fedssg:none+la_post"),
        *((f"fedssg{more}", f"made:{how}{more}") for more in ("", OFF) for how in ("oversample", "smote", "composite")),
    ],
    "plan": [
        ("fedssg", "fedssg:class"),
        ("fedssg", "fedssg:device"),
        ("fedssg", "fedssg@.1"),
        ("fedssg", "fedssg@.25"),
        ("fedssg@1", "fedssg"),
        ("fedssg", "fedssg:own"),
        ("fedssg", "fedssg:unscreened"),
        ("fedssg", f"fedssg{OFF}"),
    ],
    "rows": [
        ("fedssg", "made:public"),
        (f"fedssg{OFF}", f"made:public{OFF}"),
        ("fedssg+la_post", "made:public+la_post"),
        ("fedssg", "D_0 only"),
        ("fedssg", "D_0 init"),
        ("fedssg", "D_0 client"),
        ("fedssg", "D_0 share"),
        ("fedssg+la_post", "D_0 share+la_post"),
        ("fedssg@1", "D_0 share"),
        ("fedssg", "D_0 head"),
    ],
}
Line = dict[str, object]
Scores = dict[tuple[str, str], dict[int, dict[str, float]]]


def read(path: Path) -> Scores:
    """(setting, label) -> seed -> score -> value, of a study's rows.csv."""
    found: Scores = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values = {score: float(row[score] or "nan") for score in SCORES}
            found.setdefault((row["setting"], row["label"]), {})[int(row["seed"])] = values
    return found


def tested(name: str, study: Scores) -> list[Line]:
    """One line per comparison whose rows the study has, and score."""
    of = {label: values for (_, label), values in study.items()}
    lines: list[Line] = []
    for score in SCORES:
        for family, asked in FAMILIES.items():
            pairs = [(a, b) for a, b in asked if {a, b} <= set(of)]
            sets = {x: [of[x][seed][score] for seed in sorted(of[x])] for pair in pairs for x in pair}
            found = {f"{a} | {b}": paired(sets[a], sets[b], MARGIN) for a, b in pairs}
            p, equal = (holm({key: getattr(one, what) for key, one in found.items()}) for what in ("p", "tost_p"))
            for (key, one), (a, b) in zip(found.items(), pairs, strict=True):
                numbers = {
                    "mean": np.mean(sets[a]), "mean_against": np.mean(sets[b]), "effect": one.effect, "low": one.low,
                    "high": one.high, "p_holm": p[key], "p_equal_holm": equal[key],
                }  # fmt: skip
                lines.append(
                    {"study": name, "score": score, "family": family, "row": a, "against": b}
                    | {what: round(float(value), 4) for what, value in numbers.items()}
                    | {"wins": one.wins, "losses": one.losses, "pairs": one.n}
                    | {"differs": ("better" if one.effect > 0 else "worse") if p[key] < 0.05 else ""}
                    | {"equal": "equal" if equal[key] < 0.05 else ""}
                )
    return lines


def made(name: str, study: StudyResults) -> list[Line]:
    """Rows planned, received, and dropped by the screen, by row: means over seeds."""
    (setting,) = study.settings
    lines: list[Line] = []
    for label in study.labels:
        folders = [result.folder for result in study.of(setting, label) if result.folder is not None]
        files = [folder / "artifacts" / "fedssg.json" for folder in folders]
        found = [json.loads(path.read_text()) for path in files if path.exists()]
        if not found or "la_post" in label:
            continue
        screens = [one.get("screen", {"of": np.nan, "kept": np.nan, "dropped": {}}) for one in found]
        numbers = {
            "real": [np.sum(one["real"]) for one in found],
            "planned": [sum(one["by_client"]) for one in found],
            "received": [np.sum(one["taken"]) for one in found],
            "screened": [one["of"] for one in screens],
            "dropped_label": [sum(one["dropped"].get("label", [np.nan])) for one in screens],
            "dropped_copy": [sum(one["dropped"].get("copy", [np.nan])) for one in screens],
        }
        means = {key: round(float(np.mean(values)), 1) for key, values in numbers.items()}
        lines.append({"study": name, "row": label, "seeds": len(found)} | means)
    return lines


def draw(studies: dict[str, Scores], path: Path) -> None:
    """Both scores over |D_0|, a line of panels per study; intervals from three seeds on."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6 * len(studies)), layout="constrained")
    FigureCanvasAgg(figure)
    lines = {"fedssg": "#c8501e", "made:public": "#6a994e", "D_0 share": "#1f3b57", "D_0 only": "#9a6fb0",
             "D_0 init": "#b08d2f", "la_post": "#222222"}  # fmt: skip
    panels = figure.subplots(len(studies), 2, squeeze=False)
    for grid, (name, study) in zip(panels, studies.items(), strict=True):
        sizes = sorted({setting for setting, _ in study}, key=lambda setting: int(setting.rpartition("=")[2]))
        for axes, score in zip(grid, SCORES, strict=True):
            for shift, (label, colour) in enumerate(lines.items()):
                spread = [t_interval([one[score] for one in study[setting, label].values()]) for setting in sizes]
                centre = np.array([interval[0] for interval in spread])
                bars = np.abs(np.array([interval[1:] for interval in spread]).T - centre)
                bars = bars if min(len(study[setting, label]) for setting in sizes) > 2 else None
                axes.errorbar(np.arange(len(sizes)) + 0.05 * (shift - 2.5), centre, bars, color=colour, marker="o",
                              ms=4, capsize=2, lw=1, ls="--" if label == "la_post" else "-", label=label)  # fmt: skip
            axes.set(xticks=range(len(sizes)), xticklabels=[s.rpartition("=")[2] for s in sizes],
                     xlabel="rows of each class at the server", title=f"{name}: {score.replace('_', ' ')}")  # fmt: skip
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    with rc_context({"svg.hashsalt": "fedimb"}):  # same figure, same bytes
        figure.savefig(path, metadata={"Date": None})


def write(lines: list[Line], path: Path) -> None:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(lines)


def main() -> None:
    args = arguments(parser_of(__file__, __doc__))
    here, runs = Path(__file__).absolute().parent, args.output.parent
    whole = {"devices": "rows.csv", "embeddings": "embeddings_rows.csv"}
    write([li for name, file in whole.items() for li in tested(name, read(here / file))], args.to / "claims.csv")
    over = {"devices": "public_rows.csv", "embeddings": "embeddings_public_rows.csv"}
    draw({name: read(here / file) for name, file in over.items()}, args.to / "public.svg")
    if all((runs / f"fedssg-{name}").is_dir() for name in whole):
        lines = [line for name in whole for line in made(name, collect(runs / f"fedssg-{name}"))]
        write(lines, args.to / "made.csv")


if __name__ == "__main__":
    main()
