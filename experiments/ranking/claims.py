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
from fedimb.study.pages import Line, Row, fill, interval, read_rows, short, signed, table, write_lines

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
        "rucr",
        "fedyoyo",
        "fedrela+la_post",
        "ccvr",
        "scope+la_post",
    ),
}
"""Kind -> labels; `kind_of` refuses a row that is in none."""
MB = 1e6


def kind_of(label: str) -> str:
    """The kind of a row. Raises ValueError: a row of the study that KINDS does not name."""
    found = [kind for kind, labels in KINDS.items() if label.partition("@5")[0] in labels]
    if not found:
        raise ValueError(f"{label}: give it a kind in KINDS")
    return found[0]


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
        self.tuning = read_rows(folder / "tuning.csv")

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
        """Macro recall above chance per MB of a client (up and down), and per second of its work: medians over sets."""
        gain = self.values(label, SCORES[0]) - self.chance
        clients = np.asarray([CLIENTS.get(name, 10) for name in self.sets])
        sent = (self.values(label, "up_bytes") + self.values(label, "down_bytes")) / clients / MB
        seconds = self.values(label, "client_seconds") / clients
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
                "macro_per_client_second": per_second,
                "prior": " ".join(sorted(provenance)),
            }

    def one(self, label: str) -> Line:
        """A row's line of the leaderboard. Raises KeyError for an unknown row."""
        found = [line for line in self.leaderboard if line["row"] == label]
        if not found:
            raise KeyError(label)
        return found[0]
