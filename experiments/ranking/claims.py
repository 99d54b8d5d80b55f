"""What the runs of study.yaml say: the leaderboard, and the page.

    python experiments/ranking/claims.py     # leaderboard.csv and README.md from the CSVs beside this file

leaderboard.csv has one line a row of the study, best mean difference to the bar first; README.md is page.md with every
figure filled in. A new row or data set in study.yaml runs its own cells only; this script then makes both anew.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.study.design import read_study
from fedimb.study.pages import (
    Line,
    Row,
    contrasts_table,
    interval,
    read_rows,
    short,
    table,
    write_lines,
    write_page,
)

HERE = Path(__file__).parent
MADE = ("leaderboard.csv",)
"""Files that `publish` writes beside the page."""
SCORES = ("macro_recall", "minority_recall")
VERDICTS = ("beats", "level", "below", "undecided")
RAW = ("digits", "fashion_mnist", "pneumonia")
"""Data sets that are trained end to end on raw pictures."""
SITES = ("wbc_lite0", "wine_quality", "heart_severe")
"""Data sets whose clients are parts of real sites."""
KINDS = {
    "free": ("la_post", "uniform+la_post", "ncm", "lda"),
    "plain": ("fedavg",),
    "calibration": ("la_post@T", "tau", "gla_fr", "fednpc"),
    "loss or sampler": ("balanced_softmax", "fedlc", "fedrod", "fedvls", "class_balanced+la_post"),
    "optimisation": (
        "fedprox+la_post",
        "scaffold+la_post",
        "feddyn+la_post",
        "fedntd+la_post",
        "climb+la_post",
    ),
    "method": (
        "balancefl",
        "fedgrab",
        "creff",
        "fednh",
        "fedetf",
        "fedrela+la_post",
        "ccvr",
        "scope+la_post",
    ),
}
"""Kind -> labels; `kind_of` refuses a row that is in none."""
CLASSES = {
    "digits": 10,
    "fashion_mnist": 10,
    "pneumonia": 2,
    "cifar10_lite0": 10,
    "wbc_lite0": 5,
    "wine_quality": 7,
    "heart_severe": 2,
    "thyroid": 3,
    "page_blocks": 5,
    "yeast": 10,
    "abalone": 8,
    "hcv": 5,
    "ecg5000": 5,
}
"""Classes of each data set."""
USUAL_CLIENTS = 10
MOST = 1 / 3
"""The claim: no row that trains beats the bar on a larger share of the data sets."""
MB = 1e6


def kind_of(label: str) -> str:
    """The kind of a row. Raises ValueError: a row of the study that KINDS does not name."""
    found = [kind for kind, labels in KINDS.items() if label.partition("@5")[0] in labels]
    if not found:
        raise ValueError(f"{label}: give it a kind in KINDS")
    return found[0]


def clients_of(words: Sequence[str]) -> int:
    """The number of clients that a data set's settings ask for."""
    found = [int(word.partition("=")[2]) for word in words if word.startswith("clients.count=")]
    return found[-1] if found else USUAL_CLIENTS


class Figures:
    """Every figure that the page may quote, by words separated by ``;``, such as ``macro; creff``.

    Args:
        folder: of the CSVs.
    """

    def __init__(self, folder: Path) -> None:
        self.rows = [row for row in read_rows(folder / "rows.csv") if not row["label"].endswith("@5")]
        self.sets = list(dict.fromkeys(row["setting"] for row in self.rows))
        self.labels = list(dict.fromkeys(row["label"] for row in self.rows))
        against = read_rows(folder / "against_bar.csv")
        self.against = {(one["setting"], one["label"], one["score"]): one for one in against if one["min_count"] == "1"}
        bars = read_rows(folder / "bar.csv")
        self.bar = {one["setting"]: one["label"] for one in bars if one["bar"] == "1" and "@" not in one["label"]}
        self.contrasts = read_rows(folder / "contrasts.csv")
        own = {(row["setting"], row["label"]) for row in self.rows if kind_of(row["label"]) != "free"}
        self.trials = [one for one in read_rows(folder / "tuning.csv") if (one["setting"], one["label"]) in own]
        self.chosen = [one for one in self.trials if one["chosen"] == "1"]
        words = read_study(HERE / "study.yaml").setting_words
        self.clients = np.asarray([clients_of(words[name]) for name in self.sets])

    def values(self, label: str, column: str, sets: Sequence[str] | None = None) -> np.ndarray:
        """A column's means over the seeds of each data set [sets], float64; NaN where nothing was measured."""
        found = []
        for name in self.sets if sets is None else sets:
            own = [row[column] for row in self.rows if (row["setting"], row["label"]) == (name, label)]
            if not own:
                raise KeyError((name, label))
            found.append(np.mean([float(value or "nan") for value in own]))
        return np.asarray(found)

    def verdicts(self, label: str, sets: Sequence[str] | None = None) -> dict[str, int]:
        """How often each verdict on macro recall is given, over data sets where the row is not the bar itself."""
        names = self.sets if sets is None else sets
        given = [self.against[name, label, SCORES[0]]["verdict"] for name in names if self.bar[name] != label]
        return {verdict: given.count(verdict) for verdict in VERDICTS}

    def difference(self, label: str, score: str, sets: Sequence[str] | None = None) -> Line:
        """row - bar, the mean over data sets with its t interval; 0 where the row is the bar."""
        names = self.sets if sets is None else sets
        bars = [self.values(self.bar[name], score, [name])[0] for name in names]
        mean, low, high = t_interval((self.values(label, score, names) - bars).tolist())
        return {"difference": mean, "low": low, "high": high}

    @cached_property
    def chance(self) -> np.ndarray:
        """Macro recall of guessing, one over the number of classes [sets]: that of predicting one class."""
        return np.asarray([1 / CLASSES[name] for name in self.sets])

    def exchange(self, label: str) -> tuple[float, float]:
        """Macro recall above chance per MB of a client (up and down), and per second that it trains; NaN: it does not.

        Medians over data sets.
        """
        gain = self.values(label, SCORES[0]) - self.chance
        sent = (self.values(label, "up_bytes") + self.values(label, "down_bytes")) / self.clients / MB
        seconds = self.values(label, "client_seconds") / self.clients
        seconds[seconds == 0] = np.nan  # a one-round head trains nothing at clients, and what it takes is not measured
        return float(np.median(gain / sent)), float(np.median(gain / seconds))

    @cached_property
    def leaderboard(self) -> list[Line]:
        """One line a row, best mean difference to the bar first."""
        return sorted(self._lines(), key=lambda line: -float(str(line["difference"])))

    def _lines(self) -> Iterator[Line]:
        for label in self.labels:
            per_mb, per_second = self.exchange(label)
            provenance = {row["prior"] for row in self.rows if row["label"] == label}
            yield {
                "row": label,
                "kind": kind_of(label),
                "macro_recall": float(self.values(label, SCORES[0]).mean()),
                "minority_recall": float(self.values(label, SCORES[1]).mean()),
                **self.difference(label, SCORES[0]),
                **self.verdicts(label),
                "beats_raw": self.verdicts(label, RAW)["beats"],
                "difference_raw": self.difference(label, SCORES[0], RAW)["difference"],
                "is_bar": sum(self.bar[name] == label for name in self.sets),
                "up_bytes": float(np.median(self.values(label, "up_bytes"))),
                "down_bytes": float(np.median(self.values(label, "down_bytes"))),
                "client_seconds": float(np.median(self.values(label, "client_seconds"))),
                "macro_per_client_mb": per_mb,
                "macro_per_client_second": "" if np.isnan(per_second) else per_second,
                "prior": " ".join(sorted(provenance)),
            }

    def one(self, label: str) -> Line:
        """A row's line of the leaderboard. Raises KeyError for an unknown row."""
        found = [line for line in self.leaderboard if line["row"] == label]
        if not found:
            raise KeyError(label)
        return found[0]

    @cached_property
    def judged(self) -> list[str]:
        """Labels that the claim is about: all rows that train and are not free."""
        return [label for label in self.labels if kind_of(label) not in ("free",)]

    def claim(self, label: str) -> str:
        """What the runs say of the claim for one row: ``refuted``, ``stands`` or ``open``."""
        given, sets = self.verdicts(label), len(self.sets)
        if given["beats"] > MOST * sets:
            return "refuted"
        return "stands" if given["level"] + given["below"] >= (1 - MOST) * sets else "open"

    def __call__(self, words: str) -> str:
        """The figure, as it is printed; parts are separated by ``;``.

        Raises:
            KeyError: there is none of these words.
            ValueError: a ``check`` that does not hold.
        """
        what, *rest = (part.strip() for part in words.split(";"))
        match what:
            case "table":
                return str(getattr(self, f"_table_{rest[0]}")())
            case "macro" | "minority":
                return short(float(np.mean(self.values(rest[0], f"{what}_recall"))))
            case "difference":
                return interval(self.one(rest[0]))
            case "difference_raw":
                return interval(self.difference(rest[0], SCORES[0], RAW))
            case "beats" | "level" | "below" | "undecided":
                return str(self.verdicts(rest[0])[what])
            case "claim":
                return str(sum(self.claim(label) == rest[0] for label in self.judged))
            case "judged":
                return str(len(self.judged))
            case "verdicts":
                return str(sum(self.verdicts(label)[rest[0]] for label in self.judged))
            case "below on average":
                return str(sum(float(str(self.one(label)["high"])) < 0 for label in self.judged))
            case "above on average":
                return str(sum(float(str(self.one(label)["low"])) > 0 for label in self.judged))
            case "bars":
                return str(sum(bar == rest[0] for bar in self.bar.values()))
            case "place":
                return str([line["row"] for line in self.leaderboard].index(rest[0]) + 1)
            case "first":
                return str(self.leaderboard[int(rest[0]) - 1]["row"])
            case "tuned":
                return str(len(self.chosen))
            case "at the edge":
                return str(sum("local.lr" in row["edge"].split() for row in self.chosen))
            case "lost":
                return str(sum(row["lost"] not in ("", "0") for row in self.trials))
            case "suspect":
                return str(sum(row["suspect"] != "" for row in self.rows if row["label"] == rest[0]))
            case "check":
                return self._check(rest)
        raise KeyError(words)

    def _check(self, rest: Sequence[str]) -> str:
        """Nothing, if what the page says holds, as in ``check; contrast; creff; bar; below``."""
        match rest:
            case ["contrast", first, second, said]:
                holds = self._contrast(first, second)["verdict"] == said
            case ["above", first, second]:
                holds = float(str(self.one(first)["difference"])) > float(str(self.one(second)["difference"]))
            case ["place", label, at]:
                holds = str(self.leaderboard[int(at) - 1]["row"]) == label
            case ["minority", *most]:
                by_minority = sorted(self.leaderboard, key=lambda line: -float(str(line["minority_recall"])))
                holds = [str(line["row"]) for line in by_minority][: len(most)] == most
            case ["claim", label, said]:
                holds = self.claim(label) == said
            case ["none", said]:
                holds = not any(self.claim(label) == said for label in self.judged)
            case _:
                raise KeyError(rest)
        if not holds:
            raise ValueError(f"the CSVs do not bear out: {'; '.join(rest)}")
        return ""

    def _contrast(self, first: str, second: str) -> Row:
        found = [one for one in self.contrasts if (one["first"], one["second"]) == (first, second)]
        if not found:
            raise KeyError((first, second))
        return found[0]

    def _table_leaderboard(self) -> str:
        head = ["", "row", "kind", "macro", "minority", "row - bar, 95 %", "beats / level / below / undecided"]
        head += ["is the bar", "gain per MB", "per client-second", "the claim"]
        lines = []
        for place, line in enumerate(self.leaderboard, 1):
            label = str(line["row"])
            lines.append(
                [
                    str(place),
                    f"`{label}`",
                    str(line["kind"]),
                    *(short(float(str(line[score]))) for score in SCORES),
                    interval(line),
                    " / ".join(str(line[verdict]) for verdict in VERDICTS),
                    str(line["is_bar"]),
                    *(_rate(str(line[key])) for key in ("macro_per_client_mb", "macro_per_client_second")),
                    self.claim(label) if label in self.judged else "",
                ]
            )
        return table(head, lines)

    def _table_sets(self) -> str:
        """Every data set: its bar, and the best row of each kind there."""
        kinds = [kind for kind in KINDS if kind not in ("free", "plain")]
        lines = []
        for name in self.sets:
            bar = self.bar[name]
            cells = [name, f"`{bar}`", short(self.values(bar, SCORES[0], [name])[0])]
            for kind in kinds:
                scores = {label: self.values(label, SCORES[0], [name])[0] for label in KINDS[kind]}
                best = max(scores, key=lambda label: scores[label])
                verdict = self.against[name, best, SCORES[0]]["verdict"]
                cells.append(f"`{best}` {short(scores[best])} {verdict}")
            lines.append(cells)
        return table(["data set", "bar", "its macro recall", *(f"best {kind}, on test rows" for kind in kinds)], lines)

    def _table_raw(self) -> str:
        """Rows on raw pictures and on the rest, apart."""
        rest = [name for name in self.sets if name not in RAW]
        lines = []
        for line in self.leaderboard:
            label = str(line["row"])
            shown = [interval(self.difference(label, SCORES[0], own)) for own in (RAW, rest)]
            lines.append([f"`{label}`", *shown, str(self.verdicts(label, RAW)["beats"])])
        return table(["row", "row - bar, raw pictures", "the other data sets", "beats on raw pictures"], lines)

    def _table_contrasts(self) -> str:
        return contrasts_table(self.contrasts)


def _rate(text: str) -> str:
    """An exchange rate with two digits."""
    if not text:
        return "n/a"
    value = float(text)
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def publish(to: Path) -> None:
    """leaderboard.csv and README.md."""
    figures = Figures(to)
    write_lines(to / "leaderboard.csv", figures.leaderboard)
    write_page(HERE / "page.md", to, figures)


if __name__ == "__main__":
    publish(HERE)
