"""What the runs of images.yaml and images_mild.yaml and the heads beside them say, and the page.

    python experiments/fedssg/images_claims.py     # images_compared.csv and README.md from the CSVs beside this file

README.md is page.md with every figure filled in. A place is a data set in a setting, as cifar10/skewed. Intervals are t
intervals over five seeds of one place, without a correction for the number of comparisons.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedimb.study.pages import (
    Line,
    Row,
    contrasts_table,
    difference,
    interval,
    read_rows,
    short,
    signed,
    table,
    write_lines,
    write_page,
)

HERE = Path(__file__).parent
MADE = ("images_compared.csv",)
"""Files that `publish` writes beside the page."""
STUDIES = {"images": "skewed", "images_mild": "mild"}
"""Study -> what the page calls its setting: alpha .1, alpha .5."""
SCORES = ("macro_recall", "minority_recall")
VERDICTS = ("beats", "level", "below", "undecided")
MARGIN = 0.01
HEADS = ("ncm", "lda")
SHARED = {"clients": "", "clients and D_0": "+D_0", "D_0": " of D_0"}
"""Rows in the sums -> what a head's label has behind its name."""
ROWS = (
    "fedavg",
    "la_post",
    "la_post@T",
    "uniform+la_post",
    "ccvr",
    "fedssg",
    "fedssg+la_post",
    "made:public",
    "made:public+la_post",
    "D_0 share",
    "D_0 share+la_post",
    "ncm",
    "lda",
    "ncm+D_0",
    "lda+D_0",
    "ncm of D_0",
    "lda of D_0",
)
"""Rows of the table; those behind ``lda`` are of heads.csv."""
ASKED = (
    ("fedssg+la_post", "lda+D_0"),
    ("fedssg+la_post", "ncm+D_0"),
    ("fedssg+la_post", "made:public+la_post"),
    ("fedssg+la_post", "D_0 share+la_post"),
    ("fedssg+la_post", "lda"),
    ("fedssg", "la_post"),
    ("lda+D_0", "lda"),
    ("ncm+D_0", "ncm"),
)


TRAINED = [row for row in ROWS[: ROWS.index("ncm")] if row not in ("la_post", "uniform+la_post")]


class Figures:
    """Every figure that the page may quote, by words such as ``macro;cifar10/skewed;fedssg+la_post``.

    Args:
        folder: of the CSVs.
    """

    def __init__(self, folder: Path) -> None:
        self.scores: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
        self.bar: dict[tuple[str, int], str] = {}
        self.against: list[Row] = []
        for study, setting in STUDIES.items():
            for row in read_rows(folder / f"{study}_rows.csv"):
                for score in SCORES:
                    key = f"{row['setting']}/{setting}", row["label"], score
                    self.scores[key][int(row["seed"])] = float(row[score] or "nan")
            for row in read_rows(folder / f"{study}_bar.csv"):
                if row["bar"] == "1":
                    count = 5 if row["label"].endswith("@5") else 1
                    self.bar[f"{row['setting']}/{setting}", count] = row["label"]
            found = read_rows(folder / f"{study}_against_bar.csv")
            self.against += [row | {"place": f"{row['setting']}/{setting}"} for row in found]
        self.contrasts = {s: read_rows(folder / f"{study}_contrasts.csv") for study, s in STUDIES.items()}
        for row in read_rows(folder / "heads.csv"):
            count = "" if row["min_count"] == "1" else f"@{row['min_count']}"
            label = f"{row['head']}{SHARED[row['rows']]}{count}"
            for score in SCORES:
                key = f"{row['setting']}/{STUDIES[row['study']]}", label, score
                self.scores[key][int(row["seed"])] = float(row[score])
        self.places = list(dict.fromkeys(place for place, _, _ in self.scores))
        self.compared = list(self._compared())

    def mean(self, place: str, label: str, score: str) -> float:
        """Mean over seeds. Raises KeyError for an unknown row."""
        return float(np.mean(list(self.by_seed(place, label, score).values())))

    def by_seed(self, place: str, label: str, score: str) -> dict[int, float]:
        """Score by seed. Raises KeyError for an unknown row."""
        if (key := (place, label, score)) not in self.scores:
            raise KeyError(key)
        return self.scores[key]

    def _compared(self) -> Iterator[Line]:
        """Every row of the table against the bar, and the questions asked."""
        for place in self.places:
            pairs = [(label, self.bar[place, 1]) for label in ROWS]
            for score in SCORES:
                for row, against in dict.fromkeys([*pairs, *ASKED]):
                    if row == against:
                        continue
                    both = self.by_seed(place, row, score), self.by_seed(place, against, score)
                    named = {"place": place, "row": row, "against": against, "score": score}
                    yield named | difference(*both, MARGIN)

    def _one(self, place: str, row: str, against: str, score: str) -> Line:
        wanted = place, row, against, score
        found = [o for o in self.compared if tuple(o[k] for k in ("place", "row", "against", "score")) == wanted]
        if not found:
            raise KeyError(wanted)
        return found[0]

    def _at(self, where: str) -> list[str]:
        """The places of a data set or setting, a place itself, or all of them (``everywhere``)."""
        return [place for place in self.places if where in (place, *place.split("/"), "everywhere")]

    def __call__(self, words: str) -> str:
        """The figure, as it is printed; parts with blanks are separated by ``;``.

        Raises:
            KeyError: there is none of these words.
        """
        what, *rest = (part.strip() for part in words.split(";"))
        match what:
            case "table":
                return str(getattr(self, f"_table_{rest[0]}")(*rest[1:]))
            case "macro" | "minority":
                return short(self.mean(rest[0], rest[1], f"{what}_recall"))
            case "bar":
                return self.bar[rest[0], 1]
            case "best":
                return max(ROWS, key=lambda label: self.mean(rest[0], label, f"{rest[1]}_recall"))
            case "difference":
                return interval(self._one(*rest[:3], f"{rest[3]}_recall"))
            case "gain":
                return signed(float(str(self._one(*rest[:3], f"{rest[3]}_recall")["difference"])))
            case "verdict":
                return str(self._one(*rest[:3], f"{rest[3]}_recall")["verdict"])
            case "count":
                return self._count(*rest)
            case "asked":
                return self._asked(*rest)
            case "decided":
                every = [one for found in self.contrasts.values() for one in found]
                return str(sum(rest[0] in ("all", one["verdict"]) for one in every))
            case "moved":
                return str(self._moved())
        raise KeyError(words)

    def _count(self, said: str, where: str) -> str:
        """How many verdicts of trained rows against the bar at minimum count 1 are of a kind, in macro recall."""
        own = [
            row
            for row in self.against
            if (row["score"], row["min_count"]) == (SCORES[0], "1")
            and row["label"] in TRAINED
            and row["place"] in self._at(where)
        ]
        if not own:
            raise KeyError(where)
        return str(sum(said in ("all", row["verdict"]) for row in own))

    def _asked(self, said: str, row: str, against: str, where: str, score: str) -> str:
        """In how many places a question has a verdict; ``higher`` or ``lower``: by the mean alone."""
        own = [self._one(place, row, against, f"{score}_recall") for place in self._at(where)]
        if not own:
            raise KeyError(where)
        means = [float(str(one["difference"])) for one in own]
        if said in ("higher", "lower"):
            return str(sum((mean > 0) if said == "higher" else (mean < 0) for mean in means))
        return str(sum(said in ("all", one["verdict"]) for one in own))

    def _moved(self) -> int:
        """How many scores of heads are not the same, seed by seed, in both settings."""
        heads = [(label, count) for label in ROWS[ROWS.index("ncm") :] for count in ("", "@5")]
        return sum(
            self.by_seed(f"{name}/skewed", label + count, score) != self.by_seed(f"{name}/mild", label + count, score)
            for name in self._data_sets()
            for label, count in heads
            for score in SCORES
        )

    def _data_sets(self) -> list[str]:
        return list(dict.fromkeys(place.partition("/")[0] for place in self.places))

    def _table_rows(self, where: str) -> str:
        head, lines = ["row"], []
        places = self._at(where)
        for place in places:
            head += [f"{place.replace('/', ' ')}: macro", "minority", "macro, row - bar", "verdict"]
        for label in ROWS:
            cells = [label]
            for place in places:
                cells += [short(self.mean(place, label, score)) for score in SCORES]
                if label == (bar := self.bar[place, 1]):
                    cells += ["", "the bar"]
                else:
                    one = self._one(place, label, bar, SCORES[0])
                    cells += [interval(one), str(one["verdict"])]
            lines.append(cells)
        return table(head, lines)

    def _table_verdicts(self) -> str:
        """How the trained rows of every place stand against its bar."""
        lines = []
        for place in self.places:
            bar = self.bar[place, 1]
            found = " / ".join(short(self.mean(place, bar, score)) for score in SCORES)
            lines.append([place.replace("/", " "), bar, found, *(self._count(said, place) for said in VERDICTS)])
        return table(["where", "bar", "macro / minority", *VERDICTS], lines)

    def _table_heads(self) -> str:
        """Macro / minority recall of the heads at both minimum counts, and what D_0 adds to their sums."""
        lines = []
        for label in ("ncm", "ncm+D_0", "ncm of D_0", "lda", "lda+D_0", "lda of D_0"):
            cells = [label]
            for place in self._at("skewed"):
                for count in ("", "@5"):
                    cells.append(" / ".join(short(self.mean(place, f"{label}{count}", score)) for score in SCORES))
                pair = (label, label.removesuffix("+D_0"))
                gain = [interval(self._one(place, *pair, score)) for score in SCORES] if pair in ASKED else []
                cells.append(" / ".join(gain))
            lines.append(cells)
        head = ["row"]
        for name in self._data_sets():
            head += [name, "minimum count 5", "what D_0 adds: macro / minority"]
        return table(head, lines)

    def _table_asked(self, where: str) -> str:
        places, lines = self._at(where), []
        for row, against in ASKED:
            cells = [f"{row} - {against}"]
            for place in places:
                for score in SCORES:
                    one = self._one(place, row, against, score)
                    cells += [f"{interval(one)} {one['verdict']}"]
            lines.append(cells)
        return table(["", *(f"{p.replace('/', ' ')}: {s}" for p in places for s in ("macro", "minority"))], lines)

    def _table_contrasts(self, setting: str) -> str:
        return contrasts_table(self.contrasts[setting])


def publish(to: Path) -> None:
    """images_compared.csv and README.md."""
    figures = Figures(to)
    write_lines(to / "images_compared.csv", figures.compared)
    write_page(HERE / "page.md", to, figures)


if __name__ == "__main__":
    publish(HERE)
