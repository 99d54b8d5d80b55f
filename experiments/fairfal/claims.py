"""What the runs of skewed.yaml and even.yaml say: rules on the same head, heads against the bar, orders; and the page.

    python experiments/fairfal/claims.py     # compared.csv, orders.csv and README.md from the CSVs beside this file

README.md is page.md with every figure filled in. Intervals are t intervals over five seeds of one data set, without a
correction for the number of comparisons.
"""

import math
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
MADE = ("compared.csv", "orders.csv")
"""Files that `publish` writes beside the page."""
STUDIES = ("skewed", "even")
RULES = ("random", "entropy", "badge", "kafal", "logo", "quota_random", "quota_entropy", "fairfal")
HEADS = ("tau 1", "T", "pool", "ncm", "lda")
SCORES = ("macro_recall", "minority_recall")
VERDICTS = ("beats", "level", "below", "undecided")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "last")
SEEDS = 5
MARGIN = 0.01
TAUS = (0, 0.5, 1, 2, 3, 4)
BySeed = dict[int, float]


def _point(row: Row) -> tuple[str, str, float]:
    return f"{row['data_set']}/{row['setting']}", row["rule"], float(row["tau"])


def label_of(rule: str, head: str) -> str:
    """The row of a study that has a rule's scores at a tau."""
    if head == "tau 1":
        return "la_post" if rule == "random" else rule
    return f"{rule}@{head}"


class Figures:
    """Every figure that the page may quote, by words such as ``macro cifar10/skewed fairfal T``.

    Args:
        folder: of the CSVs.
    """

    def __init__(self, folder: Path) -> None:
        self.studies = [study for study in STUDIES if (folder / f"{study}_rows.csv").exists()]
        self.scores: dict[tuple[str, str, str], BySeed] = defaultdict(dict)
        for study in self.studies:
            for row in read_rows(folder / f"{study}_rows.csv"):
                for score in SCORES:
                    key = f"{row['setting']}/{study}", row["label"], score
                    self.scores[key][int(row["seed"])] = float(row[score] or "nan")
        for row in read_rows(folder / "heads.csv"):
            count = "" if row["min_count"] == "1" else f"@{row['min_count']}"
            for score in SCORES:
                key = f"{row['data_set']}/{row['setting']}", f"{row['rule']} {row['head']}{count}", score
                self.scores[key][int(row["seed"])] = float(row[score])
        every = dict.fromkeys(place for place, _, _ in self.scores)
        self.places = [place for place in every if self._whole(place)]
        self.taus, self.curve = read_rows(folder / "taus.csv"), read_rows(folder / "curve.csv")
        self.bar = {
            (f"{row['setting']}/{study}", int(row["label"].endswith("@5")) * 4 + 1): row["label"]
            for study in self.studies
            for row in read_rows(folder / f"{study}_bar.csv")
            if row["bar"] == "1"
        }
        self.against = {study: read_rows(folder / f"{study}_against_bar.csv") for study in self.studies}
        files = {study: folder / f"{study}_contrasts.csv" for study in self.studies}
        self.contrasts = {study: read_rows(path) for study, path in files.items() if path.exists()}
        self.compared, self.orders = list(self._compared()), list(self._orders())

    def _whole(self, place: str) -> bool:
        """Whether every rule has all seeds on every head; other places are left out of the page."""
        values = [self.of(place, rule, head, score) for rule in RULES for head in HEADS for score in SCORES]
        return all(len(one) == SEEDS and all(map(math.isfinite, one.values())) for one in values)

    def of(self, place: str, rule: str, head: str, score: str) -> BySeed:
        """Score by seed of a rule on a head."""
        name = label_of(rule, head) if head in ("tau 1", "T", "pool") else f"{rule} {head}"
        return self.scores[place, name, score]

    def mean(self, place: str, rule: str, head: str, score: str) -> float:
        values = list(self.of(place, rule, head, score).values())
        return float(np.mean(values)) if values else float("nan")

    def _compared(self) -> Iterator[Line]:
        """Rules against random on the same head; heads against the bar; discriminant analysis against the model."""
        for place in self.places:
            bar = self.bar[place, 1]
            for score in SCORES:
                for head in HEADS:
                    for rule in RULES[1:]:
                        pair = self.of(place, rule, head, score), self.of(place, "random", head, score)
                        yield self._line("same head", place, rule, head, "random", score, *pair)
                for head in ("ncm", "lda"):
                    for rule in RULES:
                        pair = self.of(place, rule, head, score), self.scores[place, bar, score]
                        yield self._line("bar", place, rule, head, bar, score, *pair)
                for rule in RULES:
                    pair = self.of(place, rule, "lda", score), self.of(place, rule, "T", score)
                    yield self._line("lda - T", place, rule, "lda", "T", score, *pair)

    def _line(
        self, kind: str, place: str, rule: str, head: str, against: str, score: str, one: BySeed, other: BySeed
    ) -> Line:
        named = {"kind": kind, "place": place, "rule": rule, "head": head, "against": against, "score": score}
        return named | difference(one, other, MARGIN)

    def _orders(self) -> Iterator[Line]:
        """Rules by macro recall on every head, and Kendall's correlation with the order at tau 1."""
        from scipy.stats import kendalltau

        for place in self.places:
            first = [self.mean(place, rule, "tau 1", SCORES[0]) for rule in RULES]
            for head in HEADS:
                own = [self.mean(place, rule, head, SCORES[0]) for rule in RULES]
                order = sorted(RULES, key=lambda rule: -own[RULES.index(rule)])
                with_one = float(kendalltau(first, own).statistic)
                pairs = [(i, j) for i in range(len(RULES)) for j in range(i)]
                turned = sum((first[i] - first[j]) * (own[i] - own[j]) < 0 for i, j in pairs)
                named = {"place": place, "head": head, "order": " > ".join(order)}
                yield named | {"kendall_with_tau_1": with_one, "pairs_turned": turned, "pairs": len(pairs)}

    def __call__(self, words: str) -> str:
        """The figure, as it is printed.

        Raises:
            KeyError: there is none of these words.
        """
        what, *rest = words.split()
        match what:
            case "table":
                return str(getattr(self, f"_table_{rest[0]}")(*rest[1:]))
            case "macro" | "minority":
                place, rule, head = rest[0], rest[1], " ".join(rest[2:])
                if not self.of(place, rule, head, f"{what}_recall"):
                    raise KeyError(words)
                return short(self.mean(place, rule, head, f"{what}_recall"))
            case "bar":
                return self.bar[rest[0], 1]
            case "difference":
                kind, place, rule, score, head = rest[0], rest[1], rest[2], f"{rest[3]}_recall", " ".join(rest[4:])
                return interval(self._one(kind.replace("_", " "), place, rule, head, score))
            case "count":
                return self._count(*rest)
            case "verdict":
                head = " ".join(rest[4:])
                return str(self._one(rest[0].replace("_", " "), rest[1], rest[2], head, f"{rest[3]}_recall")["verdict"])
            case "against":
                return self._against_bar(rest[0], rest[1])["verdict"]
            case "best":
                return max(self._trained(rest[0]), key=lambda row: float(row["difference"]))["label"]
            case "higher_by":
                one = self._one("same head", rest[0], rest[1], " ".join(rest[2:]), SCORES[0])
                return signed(float(str(one["difference"])))
            case "smaller":
                return str(self._smaller(rest[0], " ".join(rest[1:])))
            case "rank":
                return self._rank(rest[0], rest[1], " ".join(rest[2:]))
            case "rare":
                return f"{self._rare(rest[0], rest[1]):.0f}"
            case "more":
                return str(self._more(*rest))
            case "turned":
                (line,) = [o for o in self.orders if (o["place"], o["head"]) == (rest[0], " ".join(rest[1:]))]
                return f"{line['pairs_turned']} of {line['pairs']}"
            case "decided":
                return self._decided(rest[0] if rest else "")
            case "contrast":
                study, first, second, column = rest
                (line,) = [o for o in self.contrasts[study] if (o["first"], o["second"]) == (first, second)]
                return interval(line) if column == "difference" else line[column]
            case "verdicts":
                return self._verdicts(*rest)
        raise KeyError(words)

    def _one(self, kind: str, place: str, rule: str, head: str, score: str) -> Line:
        wanted = kind, place, rule, head, score
        names = ("kind", "place", "rule", "head", "score")
        (line,) = [one for one in self.compared if tuple(one[name] for name in names) == wanted]
        return line

    def _count(self, said: str, kind: str, where: str, score: str, *head: str) -> str:
        """How many comparisons have a verdict: ``count beats same_head cifar10/skewed macro tau 1``.

        Args:
            said: a verdict; ``all``: how many there are; ``higher`` or ``lower``: by the mean alone.
            kind: of comparison, as ``same_head``.
            where: a place, its data set or setting, or ``everywhere``.
            score: ``macro`` or ``minority``.
            *head: of the rows; none: any.
        """
        own = [
            one
            for one in self.compared
            if (one["kind"], one["score"]) == (kind.replace("_", " "), f"{score}_recall")
            and self._is_at(str(one["place"]), where)
            and (not head or one["head"] == " ".join(head))
        ]
        if not own:
            raise KeyError(kind)
        means = [float(str(one["difference"])) for one in own]
        if said in ("higher", "lower"):
            return str(sum((mean > 0) if said == "higher" else (mean < 0) for mean in means))
        return str(sum(said in ("all", one["verdict"]) for one in own))

    def _is_at(self, place: str, where: str) -> bool:
        return where in (place, *place.split("/"), "everywhere")

    def _rank(self, place: str, rule: str, head: str) -> str:
        """The place of a rule among all by macro recall on a head, in words."""
        (line,) = [one for one in self.orders if (one["place"], one["head"]) == (place, head)]
        return ORDINALS[str(line["order"]).split(" > ").index(rule)]

    def _rare(self, place: str, rule: str) -> float:
        """Labels of the rarest classes that a rule found, mean over seeds."""
        own = [one for one in self.taus if (f"{one['data_set']}/{one['setting']}", one["rule"]) == (place, rule)]
        return float(np.mean([float(one["rare_labels"]) for one in own]))

    def _more(self, what: str) -> int:
        """How many rules in how many places have a higher mean than another, or than at tau 1.

        Args:
            what: ``rare``: rules that found more rare labels than random; ``macro`` or ``minority``: rules whose model
                has a higher recall at its own temperature than at tau 1.
        """
        if what == "rare":
            return sum(self._rare(p, rule) > self._rare(p, "random") for p in self.places for rule in RULES[1:])
        score = f"{what}_recall"
        return sum(
            self.mean(place, rule, "T", score) > self.mean(place, rule, "tau 1", score)
            for place in self.places
            for rule in RULES
        )

    def _smaller(self, data_set: str, head: str) -> int:
        """How many rules gain less over random with even clients than with skewed ones, in macro recall on a head."""
        gains = [
            [
                float(str(self._one("same head", f"{data_set}/{s}", rule, head, SCORES[0])["difference"]))
                for s in STUDIES
            ]
            for rule in RULES[1:]
        ]
        return sum(even < skewed for skewed, even in gains)

    def _trained(self, where: str, count: str = "1") -> list[Row]:
        """Verdicts against the bar in macro recall, of trained rows: free rows and oracles are left out."""
        return [
            row
            for study in self.studies
            for row in self.against[study]
            if self._ranked(row, count)
            and (place := f"{row['setting']}/{study}") in self.places
            and self._is_at(place, where)
        ]

    def _against_bar(self, place: str, label: str) -> Row:
        (row,) = [one for one in self._trained(place) if one["label"] == label]
        return row

    def _verdicts(self, said: str, where: str, count: str = "1") -> str:
        """How many of these verdicts there are; ``all``: of any kind."""
        own = self._trained(where, count)
        if not own:
            raise KeyError(where)
        return str(sum(said in ("all", row["verdict"]) for row in own))

    def _ranked(self, row: Row, count: str) -> bool:
        rule, _, tau = row["label"].partition("@")
        trained = row["label"] == "la_post" or (rule in RULES and tau in ("", "T"))
        return row["score"] == SCORES[0] and row["min_count"] == count and trained

    def _table_rules(self, place: str) -> str:
        """Macro / minority recall of every rule on every head."""
        lines = []
        for rule in RULES:
            own = [one for one in self.taus if (f"{one['data_set']}/{one['setting']}", one["rule"]) == (place, rule)]
            taus = {key: float(np.mean([float(one[key]) for one in own])) for key in ("temperature", "oracle_pool")}
            cells = [" / ".join(short(self.mean(place, rule, head, score)) for score in SCORES) for head in HEADS]
            shown = f"{taus['temperature']:.2f}, {taus['oracle_pool']:.2f}"
            lines.append([rule, f"{self._rare(place, rule):.0f}", shown, *cells])
        head = ["rule", "rare labels", "T, T of the pool", "tau 1", "T", "T of the pool (oracle)", "ncm", "lda"]
        return table(head, lines)

    def _table_same(self) -> str:
        """Rule minus random in macro recall on the same head; bold: the interval excludes 0 and is not level."""
        lines = []
        for place in self.places:
            for rule in RULES[1:]:
                cells = []
                for head in ("tau 1", "T", "ncm", "lda"):
                    one = self._one("same head", place, rule, head, SCORES[0])
                    strong = "**" if one["verdict"] in ("beats", "below") else ""
                    cells.append(f"{strong}{interval(one)}{strong}")
                lines.append([place.replace("/", " "), rule, *cells])
        return table(["where", "rule", "tau 1", "T", "ncm", "lda"], lines)

    def _table_orders(self) -> str:
        lines = [
            [
                str(one["place"]).replace("/", " "),
                str(one["head"]).replace("pool", "T of the pool"),
                str(one["order"]),
                f"{one['pairs_turned']} of {one['pairs']}",
                short(float(str(one["kendall_with_tau_1"])), 2),
            ]
            for one in self.orders
        ]
        return table(["where", "head", "order", "pairs turned", "Kendall with tau 1"], lines)

    def _table_curve(self, *rules: str) -> str:
        """Macro / minority recall over tau."""
        lines = []
        for place in self.places:
            for rule in rules:
                cells = []
                for tau in TAUS:
                    wanted = place, rule, float(tau)
                    (one,) = [row for row in self.curve if _point(row) == wanted]
                    cells.append(" / ".join(short(float(one[score])) for score in SCORES))
                lines.append([place.replace("/", " "), rule, *cells])
        return table(["where", "rule", *(f"tau {tau:g}" for tau in TAUS)], lines)

    def _table_bars(self) -> str:
        """The bar of every place, what it finds, and how the rules' rows stand against it.

        A study leaves out the bar at minimum count 5 where it has the scores of the one at 1: they share a line.
        """
        lines = []
        for place in self.places:
            name, study = place.split("/")
            known = {row["min_count"] for row in self.against[study] if row["setting"] == name}
            for count in sorted(known):
                bar = self.bar[place, int(count)]
                found = [float(np.mean(list(self.scores[place, bar, score].values()))) for score in SCORES]
                said = [self._verdicts(one, place, count) for one in VERDICTS]
                counts = count if len(known) > 1 else "1 and 5"
                lines.append([place.replace("/", " "), counts, bar, " / ".join(map(short, found)), *said])
        return table(["where", "minimum count", "bar", "macro / minority", *VERDICTS], lines)

    def _table_contrasts(self, study: str) -> str:
        return contrasts_table(self.contrasts[study])

    def _decided(self, said: str) -> str:
        """How many registered contrasts there are in both studies (``all``), or are anything but undecided."""
        every = [one for found in self.contrasts.values() for one in found]
        return str(sum(said == "all" or one["verdict"] != "undecided" for one in every))


def publish(to: Path) -> None:
    """compared.csv, orders.csv and README.md."""
    figures = Figures(to)
    write_lines(to / "compared.csv", figures.compared)
    write_lines(to / "orders.csv", figures.orders)
    write_page(HERE / "page.md", to, figures)


if __name__ == "__main__":
    publish(HERE)
