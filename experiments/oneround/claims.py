"""What rows.csv says: the registered contrasts, what goes with the effect, costs, bars; and the page that quotes them.

    python experiments/oneround/claims.py     # claims.csv, table.txt and README.md from the CSVs beside this file

README.md is page.md with every figure filled in from the CSVs: none stands in it that they do not bear out.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from fedimb.evaluation.significance import holm, paired
from fedimb.study.pages import read_rows as read
from fedimb.study.pages import short, signed, table, write_page
from fedimb.study.pages import write_lines as write

HERE = Path(__file__).parent
SCORES = ("macro_recall", "log_loss", "minority_recall", "log_loss_tempered", "accuracy")
LOWER = ("log_loss", "log_loss_tempered")
ALL = "all"
Row = dict[str, str]
Cells = dict[tuple[str, str, str], dict[str, dict[str, list[float]]]]
"""(set, features, tail) -> arm -> score -> value by seed."""


def cells_of(rows: Iterable[Row], kinds: Sequence[str]) -> Cells:
    """The scores of the sets of some kinds."""
    found: Cells = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        if row["kind"] in kinds:
            for score in SCORES:
                found[row["set"], row["features"], row["tail"]][row["arm"]][score].append(float(row[score]))
    return found


def by_set(cells: Cells, arm: str, score: str, part: str = ALL) -> dict[str, float]:
    """Set -> mean over seeds, then over its cells; ``part``: a kind of features or a tail, or all."""
    found: dict[str, list[float]] = defaultdict(list)
    for (name, features, tail), arms in cells.items():
        if part in (ALL, features, tail) and arm in arms:
            found[name].append(float(np.mean(arms[arm][score])))
    return {name: float(np.mean(values)) for name, values in found.items()}


def contrast(cells: Cells, score: str, a: str, b: str, margin: float, part: str = ALL) -> dict[str, object]:
    """One line of claims.csv: a - b over data sets, before Holm."""
    first, second = by_set(cells, a, score, part), by_set(cells, b, score, part)
    names = sorted(first.keys() & second.keys())
    one = [first[name] for name in names]
    other = [second[name] for name in names]
    found = paired(one, other, margin, lower_is_better=score in LOWER)
    return {
        "score": score,
        "part": part,
        "a": a,
        "b": b,
        "sets": found.n,
        "mean_a": float(np.mean(one)),
        "mean_b": float(np.mean(other)),
        "effect": found.effect,
        "low": found.low,
        "high": found.high,
        "wins": found.wins,
        "losses": found.losses,
        "p": found.p,
        "p_equal": found.tost_p,
    }


def verdict(line: Mapping[str, object], p: float) -> str:
    """As registered: better, worse, equal or undecided."""
    low, high = float(str(line["low"])), float(str(line["high"]))
    if p < 0.05 and (low > 0 or high < 0):
        up = low > 0
        return "better" if up != (line["score"] in LOWER) else "worse"
    return "equal" if float(str(line["p_equal"])) < 0.05 else "undecided"


def claims(rows: Sequence[Row], registered: Mapping[str, object]) -> list[dict[str, object]]:
    """The registered contrasts with Holm over them, then the exploratory ones without."""
    contrasts, margins = registered["contrasts"], registered["margins"]
    assert isinstance(contrasts, list)
    assert isinstance(margins, dict)
    main = cells_of(rows, ("tables", "images"))
    lines = [contrast(main, score, a, b, margins[score]) for score, a, b in contrasts]
    adjusted = holm({str(k): float(str(line["p"])) for k, line in enumerate(lines)})
    found = []
    for k, line in enumerate(lines):
        p = adjusted[str(k)]
        found.append({"status": "registered", **line, "p_holm": p, "verdict": verdict(line, p)})
    for score in SCORES:
        for other in ("c=0", "c=0.5", "c=1.5", "c=2", "tau", "tau_test", "plain_trace", "equal"):
            for part in (ALL, "raw", "random", "lite0", "found", "cut"):
                if part == ALL and [score, "c=1", other] in contrasts:
                    continue
                if len(by_set(main, other, score, part)) < 2:
                    continue
                line = contrast(main, score, "c=1", other, margins.get(score, 0.01), part)
                found.append({"status": "exploratory", **line, "p_holm": math.nan, "verdict": ""})
    return found


def correlations(rows: Sequence[Row], facts: Sequence[Row]) -> list[dict[str, object]]:
    """Spearman over cells (set, features, tail): what c = 1 gains over c = 0 against what is known of the cell."""
    from scipy.stats import spearmanr

    main = cells_of(rows, ("tables", "images"))
    known: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in facts:
        if row["made"] == "yes":
            own = known[row["set"], row["features"], row["tail"]]
            d, n, rarest, width = (float(row[key]) for key in ("d", "n", "rarest", "d_eff"))
            own["features per row"].append(d / n)
            own["rows of the rarest class"].append(rarest)
            own["nats given to the rarest class"].append(width / (2 * rarest))
            own["kurtosis within classes"].append(float(row["kurtosis"]))
            own["spread of rare classes"].append(float(row["rare_spread"] or "nan"))
            own["imbalance factor"].append(float(row["imbalance_factor"]))
    lines: list[dict[str, object]] = []
    for what in next(iter(known.values())):
        for score in ("macro_recall", "log_loss"):
            pairs = []
            for key, arms in main.items():
                gain = np.mean(arms["c=1"][score]) - np.mean(arms["c=0"][score])
                values = [v for v in known[key][what] if math.isfinite(v)]
                if values:
                    pairs.append((float(np.mean(values)), float(gain)))
            x, gains = np.array(pairs).T
            found = spearmanr(x, gains)
            lines.append(
                {"what": what, "score": score, "cells": len(x), "rho": float(found.statistic), "p": float(found.pvalue)}
            )
    return lines


COSTS = ("macro_recall", "minority_recall")


def costs(rows: Sequence[Row], facts: Sequence[Row], registered: Mapping[str, object]) -> list[dict[str, object]]:
    """What floors and noise take from the head on raw inputs: means over sets, and against the same head without."""
    main = cells_of([row for row in rows if row["features"] == "raw"], ("tables", "images"))
    asked = registered["costs"]
    assert isinstance(asked, dict)
    least = asked["floors"][1]
    touched = {
        (row["set"], row["features"], row["tail"])
        for row in facts
        if row["made"] == "yes" and row["features"] == "raw" and float(row["rarest"]) < least
    }
    some = {key: arms for key, arms in main.items() if key in touched}
    lines: list[dict[str, object]] = []

    def add(what: str, cells: Cells, arm: str, against: str) -> None:
        both = {key: arms for key, arms in cells.items() if arm in arms and against in arms}
        line: dict[str, object] = {"what": what, "arm": arm, "against": against, "cells": len(both)}
        for score in COSTS:
            mine, theirs = by_set(both, arm, score), by_set(both, against, score)
            line |= {"sets": len(mine), score: float(np.mean(list(mine.values())))}
            line[f"{score}_against"] = float(np.mean(list(theirs.values())))
        lines.append(line)

    for c in (0, 1):
        add(f"minimum count {least}", some, f"c={c} floor {least}", f"c={c}")
    for epsilon in asked["epsilon"]:
        for c in (0, 1):
            add(f"epsilon {epsilon}", main, f"c={c} epsilon {epsilon}", f"c={c} clipped")
    return lines


def pairs(rows: Sequence[Row]) -> list[dict[str, object]]:
    """abcrlda and c = 1, c = 0 on two classes, over data sets."""
    main = cells_of(rows, ("tables", "images"))
    some = {key: arms for key, arms in main.items() if "pair abcrlda" in arms}
    asked = [("pair c=1", "pair abcrlda"), ("pair c=1", "pair c=0")]
    return [contrast(some, score, a, b, 0.01) for score in ("macro_recall", "log_loss") for a, b in asked]


BESIDE = {
    "digits": ["fedavg", "la_post", "uniform+la_post", "balanced_softmax", "pooled", "pooled+balanced_softmax"],
    "devices": ["fedavg", "la_post", "uniform+la_post", "balanced_softmax", "ccvr"],
}
"""Rows of experiments/baselines and experiments/fedssg."""


def beside_trained(bars: Sequence[Row], folder: Path) -> list[dict[str, object]]:
    """The head of c = 1 minus trained rows of other pages, on the same seeds of one data set."""
    mine: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for row in bars:
        if row["arm"] == "c=1":
            mine[row["setting"]][row["seed"]] = {score: float(row[score]) for score in COSTS}
    theirs: dict[tuple[str, str, str], dict[str, dict[str, float]]] = defaultdict(dict)
    for name in ("baselines", "fedssg"):
        for row in read(folder / name / "rows.csv"):
            head = f"digits IF {row['setting'].rsplit('=', 1)[-1]}" if name == "baselines" else "devices"
            values = {score: float(row[score] or "nan") for score in COSTS}
            theirs[head, row["setting"], row["label"]][row["seed"]] = values
    lines: list[dict[str, object]] = []
    for (head, setting, label), values in sorted(theirs.items()):
        if label not in BESIDE[head.split()[0]]:
            continue
        seeds = sorted(values.keys() & mine[head].keys(), key=int)
        for score in COSTS:
            one, other = ([of[seed][score] for seed in seeds] for of in (mine[head], values))
            found = paired(one, other, 0.01)
            lines.append(
                {
                    "data": head,
                    "setting": setting,
                    "row": label,
                    "score": score,
                    "seeds": found.n,
                    "head": float(np.mean(one)),
                    "trained": float(np.mean(other)),
                    "effect": found.effect,
                    "low": found.low,
                    "high": found.high,
                    "p": found.p,
                }
            )
    return lines


class Figures:
    """Every figure that the page may quote, by words such as ``effect macro_recall c=1 c=0``.

    Args:
        folder: of the CSVs.
    """

    def __init__(self, folder: Path) -> None:
        self.rows, self.facts = read(folder / "rows.csv"), read(folder / "cells.csv")
        self.bars, self.trained = read(folder / "bars.csv"), HERE.parent
        self.registered = yaml.safe_load((HERE / "registered.yaml").read_text(encoding="utf-8"))
        self.claims = claims(self.rows, self.registered)
        self.goes = correlations(self.rows, self.facts)
        self.costs = costs(self.rows, self.facts, self.registered)
        self.pairs = pairs(self.rows)
        self.beside = beside_trained(self.bars, self.trained)
        self.main = cells_of(self.rows, ("tables", "images"))
        self.every = cells_of(self.rows, ("tables", "images", "seen"))
        self.simulated = read(folder / "simulated.csv")

    def __call__(self, words: str) -> str:
        """The figure, as it is printed.

        Raises:
            KeyError: there is none of these words.
        """
        what, *rest = words.split()
        match what:
            case "table":
                return str(getattr(self, f"_{rest[0]}")())
            case "count":
                return str(self._count(rest[0]))
            case "mean":
                score, arm, part = (*rest, ALL)[:3]
                return short(float(np.mean(list(by_set(self.main, arm, score, part).values()))))
            case "set":
                name, score, arm, part = (*rest, ALL)[:4]
                own = {key: arms for key, arms in self.every.items() if key[0] == name}
                return short(by_set(own, arm, score, part)[name])
            case "rho":
                score, name = rest[0], " ".join(rest[1:])
                (line,) = [one for one in self.goes if one["score"] == score and one["what"] == name]
                return signed(float(str(line["rho"])), 2)
            case "bar":
                return self._bar(*rest)
        score, a, b, part = (*rest, ALL)[:4]
        (line,) = [one for one in self.claims if (one["score"], one["a"], one["b"], one["part"]) == (score, a, b, part)]
        if what == "p":
            return short(float(str(line["p_holm"] if line["status"] == "registered" else line["p"])))
        return signed(float(str(line[what]))) if what in ("effect", "low", "high") else str(line[what])

    def _bar(self, what: str, data: str, row: str, score: str) -> str:
        """Of one row of another page over its settings: the head's mean, or the least and largest effect."""
        name = {"20": "digits IF 20", "50": "digits IF 50"}.get(data, data)
        lines = [one for one in self.beside if (one["data"], one["row"], one["score"]) == (name, row, score)]
        if what == "head":
            return short(float(str(lines[0]["head"])))
        effects = [float(str(one["effect"])) for one in lines]
        return signed(min(effects) if what == "least" else max(effects))

    def _count(self, what: str) -> int:
        made = [row for row in self.facts if row["made"] == "yes"]
        main = [row for row in made if row["kind"] != "seen"]
        match what:
            case "sets":
                return len({row["set"] for row in main})
            case "cells":
                return len(self.main)
            case "runs":
                return len(made)
            case "minutes":
                return round(sum(float(row["cpu_seconds"]) for row in made) / 60)
            case "sums_looked_at":
                return sum(row["sums_equal"] != "" for row in made)
            case "sums_equal":
                return sum(row["sums_equal"] == "True" for row in made)
        raise KeyError(what)

    def _arms(self) -> str:
        scores = ("macro_recall", "minority_recall", "log_loss", "log_loss_tempered", "accuracy")
        lines = []
        for arm in ("c=0", "c=0.5", "c=1", "c=1.5", "c=2", "tau", "tau_test", "plain_trace"):
            means = [float(np.mean(list(by_set(self.main, arm, score).values()))) for score in scores]
            lines.append([arm, *(short(value) for value in means)])
        return table(["arm", "macro recall", "minority recall", "log loss", "log loss, tempered", "accuracy"], lines)

    def _contrasts(self) -> str:
        lines = []
        for one in self.claims:
            if one["status"] == "registered":
                low, high, p, equal = (float(str(one[k])) for k in ("low", "high", "p_holm", "p_equal"))
                lines.append(
                    [
                        str(one["score"]).replace("_", " "),
                        f"{one['a']} - {one['b']}",
                        signed(float(str(one["effect"]))),
                        f"{signed(low)} to {signed(high)}",
                        f"{one['wins']}/{one['losses']}",
                        short(p),
                        short(equal),
                        f"**{one['verdict']}**",
                    ]
                )
        return table(["score", "a - b", "effect", "95 %", "better/worse sets", "p, Holm", "p, equal", "verdict"], lines)

    def _parts(self) -> str:
        lines = []
        for part in ("raw", "random", "lite0", "found", "cut"):
            shown = [part]
            for score in ("macro_recall", "minority_recall", "log_loss"):
                found = [o for o in self.claims if (o["score"], o["b"], o["part"]) == (score, "c=0", part)]
                if found:
                    low, high = (float(str(found[0][k])) for k in ("low", "high"))
                    interval = f"{signed(low)} to {signed(high)}" if math.isfinite(low) else "too few sets"
                    shown.append(f"{signed(float(str(found[0]['effect'])))} ({interval})")
                    shown[1:1] = [str(found[0]["sets"])] if len(shown) == 2 else []
            if len(shown) > 1:
                lines.append(shown)
        return table(["cells", "sets", "macro recall", "minority recall", "log loss"], lines)

    def _sets(self) -> str:
        every = self.every
        seen = {row["set"] for row in self.rows if row["kind"] == "seen"}
        amounts = [f"c={c:g}" for c in self.registered["arms"]["c"]]
        lines = []
        for name in sorted({key[0] for key in every}, key=lambda n: (n in seen, n)):
            macro = {arm: by_set(every, arm, "macro_recall")[name] for arm in (*amounts, "tau")}
            gain = {s: by_set(every, "c=1", s)[name] - by_set(every, "c=0", s)[name] for s in SCORES}
            best = max(amounts, key=lambda arm: macro[arm])
            lines.append(
                [
                    f"{name} (seen)" if name in seen else name,
                    *(short(macro[arm]) for arm in (*amounts, "tau")),
                    best,
                    signed(gain["minority_recall"]),
                    signed(gain["log_loss"]),
                ]
            )
        head = ["set", *amounts, "tau", "best c", "minority, c=1 - c=0", "log loss, c=1 - c=0"]
        return table(head, lines)

    def _goes(self) -> str:
        what = dict.fromkeys(str(one["what"]) for one in self.goes)
        found = {(one["what"], one["score"]): one for one in self.goes}
        lines = []
        for name in what:
            both = [found[name, score] for score in ("macro_recall", "log_loss")]
            lines.append([name, *(signed(float(str(one["rho"])), 2) for one in both)])
        return table(["of the cell", "with the gain in macro recall", "with the change of the log loss"], lines)

    def _costs(self) -> str:
        lines = []
        for one in self.costs:
            arm = str(one["arm"]).split()[0]
            shown = []
            for score in COSTS:
                shown.append(f"{short(float(str(one[score])))} ({short(float(str(one[f'{score}_against'])))})")
            lines.append([str(one["what"]), arm, str(one["sets"]), *shown])
        return table(["cost", "arm", "sets", "macro recall (without)", "minority recall (without)"], lines)

    def _pairs(self) -> str:
        lines = []
        for one in self.pairs:
            mean = [short(float(str(one[k]))) for k in ("mean_a", "mean_b")]
            low, high = (float(str(one[k])) for k in ("low", "high"))
            names = [str(one[k]).removeprefix("pair ") for k in ("a", "b")]
            lines.append(
                [
                    str(one["score"]).replace("_", " "),
                    " - ".join(names),
                    " | ".join(mean).replace(" | ", ", "),
                    f"{signed(float(str(one['effect'])))} ({signed(low)} to {signed(high)})",
                ]
            )
        return table(["score", "a - b", "means", "effect"], lines)

    def _simulated(self) -> str:
        lines = []
        for one in self.simulated:
            shown = f"{short(float(one['needed_c']), 2)} ± {short(float(one['standard_error']), 2)}"
            lines.append([one["case"], one["features"], one["rows"], short(float(one["nats"]), 1), shown])
        return table(["simulated rows", "features", "rows", "nats of c = 1", "c needed ± standard error"], lines)

    def _bars(self) -> str:
        lines = []
        for one in self.beside:
            if one["score"] == "macro_recall":
                (rare,) = [
                    other
                    for other in self.beside
                    if other["score"] == "minority_recall"
                    and all(one[k] == other[k] for k in ("setting", "row", "data"))
                ]
                where = str(one["setting"]).split(" imbalance_factor")[0].replace("default", "six clients")
                shown = []
                for score in (one, rare):
                    effect, low, high = (float(str(score[k])) for k in ("effect", "low", "high"))
                    shown += [
                        short(float(str(score["trained"]))),
                        f"{signed(effect)} ({signed(low)} to {signed(high)})",
                    ]
                lines.append([str(one["data"]), where, str(one["row"]), *shown])
        return table(["data", "setting", "row", "macro", "head - row", "minority", "head - row"], lines)


def publish_all(to: Path) -> None:
    """claims.csv, goes_with.csv, costs.csv, pairs.csv, bars_compared.csv, table.txt and README.md from the CSVs in
    ``to``."""
    figures = Figures(to)
    tables = {
        "claims.csv": figures.claims,
        "goes_with.csv": figures.goes,
        "costs.csv": figures.costs,
        "pairs.csv": figures.pairs,
        "bars_compared.csv": figures.beside,
    }
    for name, lines in tables.items():
        write(to / name, lines)
    parts = [figures("table arms"), figures("table contrasts"), figures("table parts"), figures("table sets")]
    (to / "table.txt").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    write_page(HERE / "page.md", to, figures)


if __name__ == "__main__":
    publish_all(HERE)
