"""What the runs of images.yaml and the heads beside them say, and the page.

    python experiments/fedssg/images_claims.py     # images_compared.csv and README.md from the CSVs beside this file

README.md is page.md with every figure filled in. Intervals are t intervals over five seeds of one data set, without a
correction for the number of comparisons.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedimb.study.pages import Line, Row, difference, fill, interval, read_rows, short, table, write_lines

HERE = Path(__file__).parent
MADE = ("images_compared.csv",)
"""Files that `publish` writes beside the page."""
SCORES = ("macro_recall", "minority_recall")
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


def made(path: Path) -> list[Row]:
    """The lines of a CSV; none while the runs behind it are not finished."""
    return read_rows(path) if path.exists() else []


class Figures:
    """Every figure that the page may quote, by words such as ``macro cifar10 fedssg+la_post``.

    Args:
        folder: of the CSVs.
    """

    def __init__(self, folder: Path) -> None:
        self.scores: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
        for row in made(folder / "images_rows.csv"):
            for score in SCORES:
                self.scores[row["setting"], row["label"], score][int(row["seed"])] = float(row[score] or "nan")
        self.settings = list(dict.fromkeys(setting for setting, _, _ in self.scores))
        for row in read_rows(folder / "heads.csv"):
            if row["rows"] in SHARED:
                count = "" if row["min_count"] == "1" else f"@{row['min_count']}"
                label = f"{row['head']}{SHARED[row['rows']]}{count}"
                for score in SCORES:
                    self.scores[row["setting"], label, score][int(row["seed"])] = float(row[score])
        self.headed = list(dict.fromkeys(setting for setting, _, _ in self.scores))
        chosen = [row for row in made(folder / "images_bar.csv") if row["bar"] == "1"]
        self.bar = {(row["setting"], int(row["label"].endswith("@5")) * 4 + 1): row["label"] for row in chosen}
        self.against = made(folder / "images_against_bar.csv")
        self.contrasts = made(folder / "images_contrasts.csv")
        self.compared = list(self._compared())

    def mean(self, setting: str, label: str, score: str) -> float:
        """Mean over seeds. Raises KeyError for an unknown row."""
        return float(np.mean(list(self.by_seed(setting, label, score).values())))

    def by_seed(self, setting: str, label: str, score: str) -> dict[int, float]:
        """Score by seed. Raises KeyError for an unknown row."""
        if (key := (setting, label, score)) not in self.scores:
            raise KeyError(key)
        return self.scores[key]

    def _compared(self) -> Iterator[Line]:
        """Every row of the table against the bar, and the questions asked."""
        for setting in self.headed:
            pairs = [(label, self.bar[setting, 1]) for label in ROWS if setting in self.settings]
            known = {label for where, label, _ in self.scores if where == setting}
            for score in SCORES:
                for row, against in dict.fromkeys([*pairs, *ASKED]):
                    if row == against or not {row, against} <= known:
                        continue
                    both = self.by_seed(setting, row, score), self.by_seed(setting, against, score)
                    named = {"setting": setting, "row": row, "against": against, "score": score}
                    yield named | difference(*both, MARGIN)

    def _one(self, setting: str, row: str, against: str, score: str) -> Line:
        wanted = setting, row, against, score
        found = [o for o in self.compared if tuple(o[k] for k in ("setting", "row", "against", "score")) == wanted]
        if not found:
            raise KeyError(wanted)
        return found[0]

    def __call__(self, words: str) -> str:
        """The figure, as it is printed; parts with blanks are separated by ``;``.

        Raises:
            KeyError: there is none of these words.
        """
        what, *rest = (part.strip() for part in words.split(";"))
        match what:
            case "table":
                return str(getattr(self, f"_table_{rest[0]}")())
            case "macro" | "minority":
                return short(self.mean(rest[0], rest[1], f"{what}_recall"))
            case "bar":
                return self.bar[rest[0], 1]
            case "difference":
                return interval(self._one(*rest[:3], f"{rest[3]}_recall"))
            case "verdict":
                return str(self._one(*rest[:3], f"{rest[3]}_recall")["verdict"])
            case "count":
                own = [one for one in self.against if self._ranked(one)]
                return str(sum(rest[0] in ("all", one["verdict"]) for one in own))
        raise KeyError(words)

    def _ranked(self, row: dict[str, str]) -> bool:
        trained = row["label"] in ROWS[: ROWS.index("ncm")] and row["label"] not in ("la_post", "uniform+la_post")
        return row["score"] == SCORES[0] and row["min_count"] == "1" and trained

    def _table_rows(self) -> str:
        head, lines = ["row"], []
        for setting in self.settings:
            head += [f"{setting}: macro", "minority", "macro, row - bar", "verdict"]
        for label in ROWS:
            cells = [label]
            for setting in self.settings:
                cells += [short(self.mean(setting, label, score)) for score in SCORES]
                if label == (bar := self.bar[setting, 1]):
                    cells += ["", "the bar"]
                else:
                    one = self._one(setting, label, bar, SCORES[0])
                    cells += [interval(one), str(one["verdict"])]
            lines.append(cells)
        return table(head, lines)

    def _table_heads(self) -> str:
        """Macro / minority recall of the heads at both minimum counts, and what D_0 adds to their sums."""
        lines = []
        for label in ("ncm", "ncm+D_0", "ncm of D_0", "lda", "lda+D_0", "lda of D_0"):
            cells = [label]
            for setting in self.headed:
                for count in ("", "@5"):
                    cells.append(" / ".join(short(self.mean(setting, f"{label}{count}", score)) for score in SCORES))
                pair = (label, label.removesuffix("+D_0"))
                gain = [interval(self._one(setting, *pair, score)) for score in SCORES] if pair in ASKED else []
                cells.append(" / ".join(gain))
            lines.append(cells)
        head = ["row"]
        for setting in self.headed:
            head += [setting, "minimum count 5", "what D_0 adds: macro / minority"]
        return table(head, lines)

    def _table_asked(self) -> str:
        lines = []
        for row, against in ASKED:
            cells = [f"{row} - {against}"]
            for setting in self.settings:
                for score in SCORES:
                    one = self._one(setting, row, against, score)
                    cells += [f"{interval(one)} {one['verdict']}"]
            lines.append(cells)
        return table(["", *(f"{setting}: {s}" for setting in self.settings for s in ("macro", "minority"))], lines)

    def _table_contrasts(self) -> str:
        lines = []
        for one in self.contrasts:
            p, equal = (short(float(one[key] or "nan")) for key in ("p_holm", "equal_holm"))
            lines.append([f"{one['first']} - {one['second']}", interval(one), p, equal, f"**{one['verdict']}**"])
        return table(["contrast", "difference", "p, Holm", "p, equal", "verdict"], lines)


def publish(to: Path) -> None:
    """images_compared.csv and README.md."""
    figures = Figures(to)
    write_lines(to / "images_compared.csv", figures.compared)
    page = (HERE / "page.md").read_text(encoding="utf-8")
    (to / "README.md").write_text(fill(page, figures), encoding="utf-8")


if __name__ == "__main__":
    publish(HERE)
