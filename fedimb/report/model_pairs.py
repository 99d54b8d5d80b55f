"""Two models on the same test rows, in words and tables: for a terminal, and for the HTML report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from fedimb.evaluation.paired_recall import RecallTest
from fedimb.evaluation.significance import Paired
from fedimb.study.model_pairs import RESAMPLES, AcrossSeeds, ModelPair, SeedPairs
from fedimb.text import WIDTH, aligned, chance, plain, score, shorten, width

_LABEL = 18
"""Columns of a class name in a terminal; the figures take the rest of a line."""


@dataclass(frozen=True)
class PairTable:
    """A table: caption, headings (the first is for the labels), and cells by line."""

    caption: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]


def models_text(found: ModelPair | SeedPairs, stream: TextIO | None = None) -> str:
    """The comparison as text: who is compared, the result in one sentence, tables, and how it was tested.

    Args:
        found: see `fedimb.study.model_pairs`.
        stream: where the text will be written; only its encoding matters. Default: standard output.
    """
    who = [f"{word:9}  {plain(text, stream)}" for word, text in subjects(found)]
    blocks = ["\n".join(who), "\n".join(_wrapped(sentence(found), stream))]
    blocks += ["\n".join(_table(table, stream)) for table in tables(found)]
    blocks.append("\n".join(line for text in (*method(found), *notes(found)) for line in _wrapped(text, stream)))
    return "\n\n".join(blocks)


def sentence(found: ModelPair | SeedPairs) -> str:
    """What came out, in plain words."""
    return _pair_sentence(found) if isinstance(found, ModelPair) else _seeds_sentence(found)


def subjects(found: ModelPair | SeedPairs) -> list[tuple[str, str]]:
    """What A and B are and on which rows, as (word, text)."""
    if isinstance(found, SeedPairs):
        seeds = ", ".join(map(str, found.pairs))
        return [("A", found.a), ("B", found.b), ("setting", found.setting), ("seeds", seeds)]
    on = f"{found.rows}" + (f" of {found.patients} patients" if found.patients else "")
    return [
        ("A", f"{found.a.label}, seed {found.a.seed}: {found.a.folder}"),
        ("B", f"{found.b.label}, seed {found.b.seed}: {found.b.folder}"),
        ("test rows", f"{on}, contents sha256 {found.a.scores.test_set[:16]}"),
    ]


def tables(found: ModelPair | SeedPairs) -> list[PairTable]:
    """The figures behind the sentence."""
    if isinstance(found, ModelPair):
        return [_recall_table(found), _auroc_table(found)]
    return [_by_seed(found), *_over_seeds(found)]


def notes(found: ModelPair | SeedPairs) -> list[str]:
    """Limitations, in sentences."""
    if isinstance(found, ModelPair):
        return list(found.notes)
    return [*(f"seed {seed} is missing: {reason}" for seed, reason in found.missing.items()), *found.notes]


def method(found: ModelPair | SeedPairs) -> list[str]:
    """How it was tested."""
    percent = f"{100 * found.level:.4g} %"
    each = [
        "Differences are A - B, with both trained models as they are: the test rows vary, not the training.",
        f"Recall: {percent} percentile interval of {RESAMPLES:,} paired bootstrap resamples, stratified by class; p is "
        "McNemar's exact conditional test (no continuity correction), for means over classes the same with every row "
        "weighted as in the mean; mid-p counts half the probability of what was observed.",
        f"AUROC: one class against the rest; DeLong's test and {percent} interval, with the two curves' covariance.",
        f"Holm corrects over the classes, for recall and for AUROC separately; + and - mark what is significant at "
        f"{1 - found.level:.2g} after it. Minority recall, macro recall and accuracy are one test each, not corrected.",
    ]
    stars = ["* marks the minority classes."] if isinstance(found, ModelPair) and found.minority else []
    if isinstance(found, ModelPair):
        return [*each, *stars]
    return [
        "Seeds are not pooled as rows: the two models of each seed are tested on that seed's test rows. Over seeds: "
        "Hodges-Lehmann effect of A - B with its distribution-free interval and Wilcoxon's signed-rank test (Pratt), "
        "as for the rows of a study; Holm over the classes. Nothing is claimed over seeds while a run is missing.",
        *each,
    ]


def _pair_sentence(pair: ModelPair) -> str:
    test, what = _main(pair)
    a, b = pair.a.label, pair.b.label
    figures = f"{what} {score(test.recall_a)} against {score(test.recall_b)}, {_interval(test, pair.level)}"
    figures += f", p {chance(test.p)}"
    on = f"On the same {pair.rows} test rows"
    group = "the minority classes" if what == "minority recall" else "the classes"
    if math.isnan(test.p):
        return f"{on} there is no {what} to compare."
    if test.p <= pair.alpha and test.difference:
        said = f"{on} {a} finds {'more' if test.difference > 0 else 'less'} of {group} than {b}: {figures}."
    elif not test.only_a and not test.only_b:
        said = f"{on} {a} and {b} find the same rows of {group}: {what} {score(test.recall_a)} for both."
    else:
        said = f"{on} no difference in {what} between {a} and {b} is shown: {figures}. That does not show them equal."
    if what == "minority recall":
        macro = pair.recall.macro
        said += f" Macro recall: {_interval(macro, pair.level)}, p {chance(macro.p)}."
    tested = sum(1 for one in pair.recall.classes if one.rows)
    recall, auroc = _better(pair, "recall"), _better(pair, "auroc")
    return f"{said} After Holm's correction over {tested} classes, recall differs in {recall} and AUROC in {auroc}."


def _main(pair: ModelPair) -> tuple[RecallTest, str]:
    """The headline: minority recall, or macro recall if no minority is defined for both."""
    if pair.recall.minority.rows:
        return pair.recall.minority, "minority recall"
    return pair.recall.macro, "macro recall"


def _better(pair: ModelPair, kind: str) -> str:
    """``"2 (A better: x; B better: y)"``, or ``"no class"``."""
    tests = pair.recall.classes if kind == "recall" else pair.auroc
    adjusted = pair.recall_holm if kind == "recall" else pair.auroc_holm
    sides: dict[str, list[str]] = {}
    for c, p in enumerate(adjusted):
        if p <= pair.alpha:
            winner = pair.a.label if tests[c].difference > 0 else pair.b.label
            sides.setdefault(winner, []).append(pair.class_names[c])
    if not sides:
        return "no class"
    named = "; ".join(f"{who} better: {_few(names)}" for who, names in sides.items())
    return f"{sum(map(len, sides.values()))} ({named})"


def _seeds_sentence(found: SeedPairs) -> str:
    across, what = (found.minority, "minority recall") if found.minority.test.n else (found.macro, "macro recall")
    test, pairs = across.test, list(found.pairs.values())
    own = [_main(pair)[0] for pair in pairs]
    better = sum(one.p <= pair.alpha and one.difference > 0 for one, pair in zip(own, pairs, strict=True))
    worse = sum(one.p <= pair.alpha and one.difference < 0 for one, pair in zip(own, pairs, strict=True))
    alpha = round(1 - found.level, 12)
    figures = f"{what} {_signed(test.effect)}"
    if not math.isnan(test.low):
        figures += f" ({100 * found.level:.4g} % interval {test.low:+.3f} to {test.high:+.3f})"
    figures += f", p {chance(across.p)}"
    a, b, seeds = found.a, found.b, f"{len(pairs)} seed{'s' if len(pairs) != 1 else ''}"
    if test.missing:
        said = f"Over {seeds} nothing is claimed, as {test.missing} more lack a run of {a} or {b}: {figures}."
    elif across.p <= alpha and test.effect:
        said = f"Over {seeds} {a} has {'higher' if test.effect > 0 else 'lower'} {what} than {b}: {figures}."
    else:
        said = f"Over {seeds} no difference in {what} between {a} and {b} is shown: {figures}."
        said += " That does not show them equal."
    if across is found.minority:
        said += f" Macro recall: {_signed(found.macro.test.effect)}, p {chance(found.macro.p)}."
    single = f"On single seeds' test rows {a} is significantly better in {better} and worse in {worse} of {len(pairs)}."
    return f"{said} {single}"


def _recall_table(pair: ModelPair) -> PairTable:
    head = ["recall", "rows", "A", "B", "A - B", f"{100 * pair.level:.4g} % interval", "only A/B", "p", "mid-p", "Holm"]
    tests = pair.recall
    lines = [_recall_line("minority classes", tests.minority, tests.minority.p, pair)] if tests.minority.rows else []
    lines.append(_recall_line("macro", tests.macro, tests.macro.p, pair))
    if tests.overall is not None:
        lines.append(_recall_line("accuracy", tests.overall, tests.overall.p, pair))
    lines = [[*line[:-1], line[-1].replace(chance(math.nan), "")] for line in lines]
    for c, test in enumerate(tests.classes):
        lines.append(_recall_line(_class(pair, c), test, pair.recall_holm[c], pair, corrected=True))
    return PairTable("Recall: which of the rows of a class each model finds", head, lines)


def _recall_line(label: str, test: RecallTest, decides: float, pair: ModelPair, corrected: bool = False) -> list[str]:
    mark = _mark(decides, test.difference, pair.alpha)
    bounds = "n/a" if math.isnan(test.low) else f"{test.low:+.3f} to {test.high:+.3f}"
    raw = chance(test.p) + ("" if corrected else mark)
    return [
        label,
        str(test.rows),
        score(test.recall_a),
        score(test.recall_b),
        _signed(test.difference),
        bounds,
        f"{test.only_a}/{test.only_b}",
        raw,
        chance(test.mid_p),
        chance(decides) + mark if corrected else "",
    ]


def _auroc_table(pair: ModelPair) -> PairTable:
    head = ["AUROC", "rows", "A", "B", "A - B", f"{100 * pair.level:.4g} % interval", "p", "Holm"]
    lines = []
    for c, test in enumerate(pair.auroc):
        bounds = "n/a" if math.isnan(test.low) else f"{test.low:+.3f} to {test.high:+.3f}"
        lines.append([
            _class(pair, c),
            str(test.positives),
            score(test.auroc_a),
            score(test.auroc_b),
            _signed(test.difference),
            bounds,
            chance(test.p),
            chance(pair.auroc_holm[c]) + _mark(pair.auroc_holm[c], test.difference, pair.alpha),
        ])  # fmt: skip
    return PairTable("AUROC: how well each model's score ranks a class before the rest", head, lines)


def _by_seed(found: SeedPairs) -> PairTable:
    head = ["seed", "rows", "minority A", "B", "A - B", "p", "macro A", "B", "A - B", "p", "recall", "AUROC"]
    lines = []
    for seed, pair in found.pairs.items():
        line = [str(seed), str(pair.rows)]
        for test in (pair.recall.minority, pair.recall.macro):
            line += [score(test.recall_a), score(test.recall_b), _signed(test.difference)]
            line.append(chance(test.p) + _mark(test.p, test.difference, pair.alpha))
        counts = [sum(p <= pair.alpha for p in adjusted) for adjusted in (pair.recall_holm, pair.auroc_holm)]
        lines.append([*line, *map(str, counts)])
    return PairTable("Seed by seed, on that seed's test rows; last: classes that differ after Holm", head, lines)


def _over_seeds(found: SeedPairs) -> list[PairTable]:
    names = next(iter(found.pairs.values())).class_names
    head = ["seeds", "effect", f"{100 * found.level:.4g} % interval", "won/lost/tied", "p"]
    means = [("minority classes", found.minority), ("macro", found.macro)]
    recall = [*means, *zip(names, found.recall, strict=True)]
    auroc = list(zip(names, found.auroc, strict=True))
    return [
        PairTable(
            f"{what} over seeds, A - B; p of a class after Holm",
            [what.split(",")[0], *head],
            [[label, *_across_cells(one, found)] for label, one in lines],
        )
        for what, lines in (("Recall", recall), ("AUROC", auroc))
    ]


def _across_cells(one: AcrossSeeds, found: SeedPairs) -> list[str]:
    test: Paired = one.test
    bounds = "n/a" if math.isnan(test.low) else f"{test.low:+.3f} to {test.high:+.3f}"
    mark = " " if test.missing else _mark(one.p, test.effect, round(1 - found.level, 12))
    return [str(test.n), _signed(test.effect), bounds, f"{test.wins}/{test.losses}/{test.ties}", chance(one.p) + mark]


def _class(pair: ModelPair, c: int) -> str:
    return pair.class_names[c] + (" *" if c in pair.minority else "")


def _mark(p: float, difference: float, alpha: float) -> str:
    """``+`` or ``-`` if significant, else a space, so that figures stay aligned."""
    if not p <= alpha or not difference:
        return " "
    return "+" if difference > 0 else "-"


def _interval(test: RecallTest, level: float) -> str:
    return f"{test.difference:+.3f} ({100 * level:.4g} % interval {test.low:+.3f} to {test.high:+.3f})"


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.3f}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _table(table: PairTable, stream: TextIO | None) -> list[str]:
    head = ["", *table.head[1:]]
    lines = [[shorten(plain(line[0], stream), _LABEL), *line[1:]] for line in table.lines]
    shown = aligned([head, *lines])
    return [plain(table.caption, stream), shown[0], "-" * max(map(width, shown)), *shown[1:]]


def _wrapped(text: str, stream: TextIO | None) -> list[str]:
    """Wrap to lines of `WIDTH`."""
    lines: list[str] = []
    for word in plain(text, stream).split():
        if lines and width(lines[-1]) + 1 + width(word) <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
