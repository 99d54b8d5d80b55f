"""The paper's claims and ours, each as one paired comparison on the same seeds; what was kept; what the selection sent.

    fedimb compare experiments/scope/study.yaml
    fedimb compare experiments/scope/rules.yaml
    fedimb compare experiments/scope/encoders.yaml
    python experiments/scope/claims.py     # writes claims.csv, kept.csv, bytes.csv and claims.svg beside this file

Effect: Hodges-Lehmann with its interval; p: Wilcoxon, Holm within a family and score; equal: two one-sided t tests
within .02. The families `paper`, `controls` and `free` were named before the comparison had run. Macro recall is the
paper's score: accuracy on balanced test sets.
"""

import csv
import json
from pathlib import Path

import numpy as np

from fedimb.errors import DataError
from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.significance import holm, paired
from fedimb.rundir.folder import RunFolder
from fedimb.study.experiments import arguments, parser_of
from fedimb.study.folders import collect
from fedimb.study.results import StudyResults

SCORES = ("macro_recall", "minority_recall")
RATES = (".1", ".5", ".9")
MARGIN = 0.02
ONCE = {"paper": [("no_redundancy", "fedavg")], "free": [("no_redundancy", "la_post")]}
PER_RATE = {
    "paper": [
        ("scope", "fedavg"),
        ("scope", "no_global"),
        ("scope", "no_anomaly"),
        ("scope", "no_redundancy"),
        ("scope", "no_diversity"),
        ("scope", "own:fedcs"),
    ],
    "controls": [
        ("scope", "gate_random"),
        ("scope", "score_only"),
        ("scope", "undersample"),
        ("scope", "own:random"),
        ("scope", "rule:random"),
    ],
    "free": [
        ("scope", "la_post"),
        ("scope+la_post", "la_post"),
        ("scope+la_post", "gate_random+la_post"),
        ("scope+la_post", "rule:random+la_post"),
        ("scope+la_post", "undersample+la_post"),
        ("scope+uniform+la_post", "uniform+la_post"),
    ],
}
"""family -> (row, other row); rows of a rate get its suffix, others stand for all rates."""

RULES = ("fedcs", "fedcore", "herding", "k_center", "el2n", "grand", "forgetting", "ccs")

Line = dict[str, object]


def comparisons(labels: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(family, row, other) with labels as the study has them."""
    found = [(family, a, b) for family, pairs in ONCE.items() for a, b in pairs]
    for family, pairs in PER_RATE.items():
        found += [(family, f"{a}@{p}", f"{b}@{p}" if f"{b}@{p}" in labels else b) for p in RATES for a, b in pairs]
    found += [("free", f"scope_native{more}@{p}", f"fedavg{more}".removeprefix("fedavg+"))
              for p in (".5", ".9") for more in ("", "+la_post")]  # fmt: skip
    return found


def tested(study: StudyResults, asked: list[tuple[str, str, str]]) -> list[Line]:
    """One line per comparison (family, row, other) and score."""
    (setting,) = study.settings
    lines: list[Line] = []
    for score in SCORES:
        for family in dict.fromkeys(name for name, _, _ in asked):
            pairs = [(a, b) for name, a, b in asked if name == family]
            seeds = sorted({result.seed for result in study.results})
            of = {x: [study.scores(setting, x, score).get(s, np.nan) for s in seeds] for pair in pairs for x in pair}
            found = {(a, b): paired(of[a], of[b], MARGIN) for a, b in pairs}
            p = holm({f"{a} {b}": one.p for (a, b), one in found.items()})
            equal = holm({f"{a} {b}": one.tost_p for (a, b), one in found.items()})
            for (a, b), one in found.items():
                claim = one.missing == 0
                sign = ("better" if one.effect > 0 else "worse") if claim and p[f"{a} {b}"] < 0.05 else ""
                lines.append(
                    {
                        "score": score,
                        "family": family,
                        "row": a,
                        "against": b,
                        "mean": round(float(np.nanmean(of[a])), 4),
                        "mean_against": round(float(np.nanmean(of[b])), 4),
                        "effect": round(one.effect, 4),
                        "low": round(one.low, 4),
                        "high": round(one.high, 4),
                        "wins": one.wins,
                        "losses": one.losses,
                        "pairs": one.n,
                        "p_holm": round(p[f"{a} {b}"], 4),
                        "p_equal_holm": round(equal[f"{a} {b}"], 4),
                        "differs": sign,
                        "equal": "equal" if claim and equal[f"{a} {b}"] < 0.05 else "",
                    }
                )
    return lines


def kept(study: StudyResults) -> list[Line]:
    """Share of rows kept, by row: of all, by client, and by thirds of classes; means over seeds."""
    (setting,) = study.settings
    lines: list[Line] = []
    for label in study.labels:
        shares = []
        for result in study.of(setting, label):
            if result.folder is None or "la_post" in label:
                continue
            tables = [result.folder / "artifacts" / name for name in ("coreset.json", "scope.json")]
            found = next((json.loads(path.read_text()) for path in tables if path.exists()), None)
            if found is None:
                continue
            have, left = np.array(found["held"]), np.array(found["kept"])
            order = np.argsort(-have.sum(0), kind="stable")
            thirds = [left[:, part].sum() / have[:, part].sum() for part in (order[:3], order[3:7], order[7:])]
            clients = left.sum(1) / have.sum(1)
            shares.append([left.sum() / have.sum(), clients.min(), clients.max(), *thirds])
        if shares:
            names = ("kept", "least_client", "most_client", "head3", "mid4", "tail3")
            values = np.mean(shares, 0).round(4).tolist()
            lines.append({"row": label, "seeds": len(shares)} | dict(zip(names, values, strict=True)))
    return lines


def sent(study: StudyResults, labels: tuple[str, ...]) -> list[Line]:
    """Bytes that all clients sent up in one run, by kind of message (first seed)."""
    (setting,) = study.settings
    lines: list[Line] = []
    for label in labels:
        folder = study.of(setting, label)[0].folder
        if folder is None:
            raise DataError(f"row '{label}' has no run folder: run the study here, its bytes are in the folders alone")
        total: dict[str, float] = {}
        every = list(RunFolder(folder).metrics())
        for line in (line for line in every if line["row"] == every[0]["row"]):  # a row per calibration, one training
            for name, value in line["metrics"].items():
                if name.startswith("comm/up_bytes/"):
                    total[name.rpartition("/")[2]] = total.get(name.rpartition("/")[2], 0.0) + value
        lines += [{"row": label, "message": name, "up_bytes": int(value)} for name, value in sorted(total.items())]
    return lines


def draw(study: StudyResults, path: Path) -> None:
    """Both scores over p_f: SCOPE, what it is made of, and what costs nothing."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    (setting,) = study.settings
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    lines = {"scope": "#4a7fa7", "no_global": "#c8501e", "gate_random": "#6a994e", "undersample": "#9a6fb0",
             "own:fedcs": "#b08d2f", "scope+la_post": "#1f3b57"}  # fmt: skip
    for axes, score in zip(figure.subplots(1, 2), SCORES, strict=True):
        for shift, (label, colour) in enumerate(lines.items()):
            means = [list(study.scores(setting, f"{label}@{p}", score).values()) for p in RATES]
            spread = [t_interval(values) for values in means]
            centre = np.array([np.mean(values) for values in means])
            bars = np.abs(np.array([interval[1:] for interval in spread]).T - centre)
            axes.errorbar(np.arange(3) + 0.05 * (shift - 2.5), centre, bars, color=colour, marker="o", ms=4,
                          capsize=2, lw=1, label=label)  # fmt: skip
        for label, style in (("fedavg", ":"), ("la_post", "--"), ("uniform+la_post", "-")):
            axes.axhline(np.mean(list(study.scores(setting, label, score).values())), color="#222222", ls=style, lw=1,
                         label=f"{label}, all rows")  # fmt: skip
        axes.set(xticks=range(3), xticklabels=RATES, xlabel="p_f", title=score.replace("_", " "))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    with rc_context({"svg.hashsalt": "fedimb"}):  # same figure, same bytes
        figure.savefig(path, metadata={"Date": None})


def write(lines: list[Line], path: Path) -> None:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(lines)


def main() -> None:
    parser = parser_of(__file__, __doc__)
    parser.add_argument("--rules", type=Path, default=Path("runs/scope-rules"))
    parser.add_argument("--encoders", type=Path, default=Path("runs/scope-encoders"))
    args = arguments(parser)
    study = collect(args.output)
    rules = collect(args.rules)
    against = [("rules", f"scope@{p}", f"rule:{rule}@{p}") for p in RATES for rule in RULES]
    write(tested(study, comparisons(study.labels)) + tested(rules, against), args.to / "claims.csv")
    write(kept(study), args.to / "kept.csv")
    encoders = collect(args.encoders)
    bytes_up = sent(study, ("scope@.5", "own:fedcs@.5", "la_post"))
    write(bytes_up + sent(encoders, ("means@.5", "warm@.5")), args.to / "bytes.csv")
    draw(study, args.to / "claims.svg")


if __name__ == "__main__":
    main()
