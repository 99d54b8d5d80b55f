"""The page of results: tables made from the CSVs of experiments/, each with links to its file and its commands."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, median

from website.command_line import plain

ROOT = Path(__file__).parents[1]
HERE = ROOT / "experiments"
ADDRESS = "results.md"
LEADERBOARD = "ranking/leaderboard.csv"
DATA_SETS = "baselines/sets_data_sets.csv"
COSTS = ("ranking/rows.csv", "baselines/sets_rows.csv")
BENCH = "engine/bench.csv"
NO_BREAK = "\N{NO-BREAK SPACE}"
FIGURES = re.compile(r"[-+.\d]+( (to|/) [-+.\d]+)+")
Line = dict[str, str]


@cache
def lines_of(name: str) -> tuple[Line, ...]:
    """The lines of a CSV of experiments/."""
    with (HERE / name).open(newline="", encoding="utf-8") as opened:
        return tuple(csv.DictReader(opened))


def number(text: str, digits: int = 3, sign: bool = False) -> str:
    """A figure as it is shown; what is no number, or none, as it stands.

    Example:
        >>> number("-0.14551", sign=True), number("0.05", 2), number(""), number("la_post")
        ('-0.146', '0.05', 'n/a', 'la_post')
    """
    try:
        return f"{float(text):{'+' if sign else ''}.{digits}f}"
    except ValueError:
        return plain(text) if text else "n/a"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; an interval, or a list of counts, stays on one line."""
    joined = [[cell.replace(" ", NO_BREAK) if FIGURES.fullmatch(cell) else cell for cell in row] for row in rows]
    lines = [heads, ["---"] * len(heads), *joined]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def source(name: str) -> str:
    """Where a table's figures are from: the CSV, and the commands that made it."""
    folder = name.partition("/")[0]
    return f"From [{name}](files/experiments/{name}); [commands](#{folder}); [page](experiments/{folder}/index.md)."


def _ranking(lines: Sequence[Line]) -> str:
    """The leaderboard of the ranking: what is read in a minute; the CSV has the rest."""
    verdicts = ["beats", "level", "below", "undecided"]
    rows = [
        [
            plain(line["row"]),
            line["kind"],
            number(line["macro_recall"]),
            number(line["minority_recall"]),
            number(line["difference"], sign=True),
            f"{number(line['low'], sign=True)} to {number(line['high'], sign=True)}",
            " / ".join(line[verdict] for verdict in verdicts),
            number(str(float(line["up_bytes"]) / 1e6), 2),
            number(line["client_seconds"], 1) if float(line["client_seconds"]) else "none",
            plain(line["prior"]),
        ]
        for line in lines
    ]
    heads = ["row", "kind", "macro recall", "minority recall", "to the bar", "95 % interval", " / ".join(verdicts)]
    heads += ["MB up", "client-seconds", "class prior"]
    said = (
        "Scores, and the difference in macro recall to the [bar](explanation/the-bar.md), are means over data sets; "
        "verdicts count data sets; MB sent and seconds of training are of all clients, medians over data sets. The bar "
        "is the best of the four free rows, chosen on rows held out."
    )
    return f"{source(LEADERBOARD)} {said}\n\n{table(heads, rows)}"


def leaderboard() -> str:
    """The ranking as its own script wrote it; without one, the rows of the comparison over data sets."""
    if (HERE / LEADERBOARD).is_file():
        return _ranking(lines_of(LEADERBOARD))
    found = tuple(line for line in lines_of(DATA_SETS) if line["min_count"] == "1")
    parts = [
        source(DATA_SETS),
        "Difference to the [bar](explanation/the-bar.md), mean over data sets with its 95 % interval.",
    ]
    for score in dict.fromkeys(line["score"] for line in found):
        own = sorted((line for line in found if line["score"] == score), key=lambda line: -float(line["difference"]))
        rows = [
            [
                plain(line["label"]),
                number(line["difference"], sign=True),
                f"{number(line['low'], sign=True)} to {number(line['high'], sign=True)}",
                line["verdict"],
                number(line["mean_rank"], 1),
                line["sets"],
            ]
            for line in own
        ]
        heads = ["row", "difference", "interval", "verdict", "mean rank", "data sets"]
        parts.append(f"### {plain(score)}, against the bar\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def decided() -> list[str]:
    """CSVs whose lines have a verdict and say whether it was registered, by name."""
    found = (path.relative_to(HERE).as_posix() for path in sorted(HERE.glob("*/*.csv")))
    return [name for name in found if (lines := lines_of(name)) and {"status", "verdict"} <= lines[0].keys()]


def judged() -> list[str]:
    """CSVs with verdicts that no registration covers."""
    found = (path.relative_to(HERE).as_posix() for path in sorted(HERE.glob("*/*.csv")))
    wanted: list[Callable[[Line], bool]] = [
        lambda line: "verdict" in line and "status" not in line,
        lambda line: {"differs", "equal"} <= line.keys(),
    ]
    return [name for name in found if (lines := lines_of(name)) and any(test(lines[0]) for test in wanted)]


def registered() -> str:
    """Every contrast that was registered, or was to be, with what came of it."""
    parts = []
    for name in decided():
        lines = lines_of(name)
        first, second = ("first", "second") if "first" in lines[0] else ("a", "b")
        effect = "difference" if "difference" in lines[0] else "effect"
        rows = [
            [
                line["status"],
                plain(line["score"]),
                f"{plain(line[first])} against {plain(line[second])}",
                line["sets"],
                number(line[effect], sign=True),
                f"{number(line['low'], sign=True)} to {number(line['high'], sign=True)}",
                number(line["p_holm"]),
                line["verdict"],
            ]
            for line in lines
            if line["status"] == "registered"
        ]
        heads = ["status", "score", "rows", "data sets", "difference", "interval", "p (Holm)", "verdict"]
        if rows:
            parts.append(f"### {name.removesuffix('.csv')}\n\n{when(name)}{source(name)}\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def when(name: str) -> str:
    """When the study of a file of contrasts was registered, and the hash."""
    file = HERE / (name.removesuffix("_contrasts.csv") + ".registered.json")
    if not file.is_file():
        return ""
    about = json.loads(file.read_text(encoding="utf-8"))
    link = f"files/experiments/{file.relative_to(HERE).as_posix()}"
    return f"[Registered]({link}) on {about['time'][:10]}, {about['sha256'][:12]}. "


def exploratory() -> str:
    """What has verdicts without a registration, with how many of each."""
    rows = []
    for name in decided():
        own = [line["verdict"] for line in lines_of(name) if line["status"] != "registered"]
        if own:
            rows.append([f"[{name}](files/experiments/{name})", str(len(own)), counted(own)])
    for name in judged():
        own = [
            line.get("verdict") or line.get("differs") or line.get("equal") or "undecided" for line in lines_of(name)
        ]
        rows.append([f"[{name}](files/experiments/{name})", str(len(own)), counted(own)])
    return table(["file", "comparisons", "verdicts"], rows)


def counted(words: Sequence[str]) -> str:
    """How often each word occurs, the most frequent first."""
    return ", ".join(f"{count} {plain(word)}" for word, count in Counter(words).most_common())


def exchange() -> str:
    """What a row's minority recall costs: bytes, client-minutes, and recall per each."""
    name = next(name for name in COSTS if (HERE / name).is_file())
    lines = [line for line in lines_of(name) if line["status"] == "finished"]
    failed = len(lines_of(name)) - len(lines)
    rows = []
    for label in dict.fromkeys(line["label"] for line in lines):
        own = [line for line in lines if line["label"] == label]
        recall = fmean(float(line["minority_recall"]) for line in own)
        megabytes = fmean((float(line["up_bytes"]) + float(line["down_bytes"])) / 1e6 for line in own)
        minutes = fmean(float(line["client_seconds"]) / 60 for line in own)
        rates = [f"{recall / cost:.3g}" if cost else "costs nothing" for cost in (megabytes, minutes)]
        rows.append(
            (recall, [plain(label), f"{recall:.3f}", f"{megabytes:.2f}", f"{minutes:.3f}", *rates, str(len(own))])
        )
    rows.sort(key=lambda row: -row[0])
    heads = ["row", "minority recall", "MB", "client-minutes", "recall per MB", "recall per minute", "runs"]
    note = f" {failed} runs that did not finish are left out." if failed else ""
    text = f"Means over the runs of all data sets and seeds, and their ratios; seconds are those of one machine.{note}"
    return f"{source(name)} {text}\n\n{table(heads, [row for _, row in rows])}"


def bench() -> str:
    """Time per round of each engine as a ratio to plain torch and to Flower's own simulation."""
    by_case: dict[tuple[str, str], float] = {}
    for case, engine in dict.fromkeys((line["case"], line["engine"]) for line in lines_of(BENCH)):
        own = [line["round_s"] for line in lines_of(BENCH) if (line["case"], line["engine"]) == (case, engine)]
        by_case[case, engine] = median(map(float, own))
    rows = []
    for (case, engine), seconds in by_case.items():
        if engine not in ("inline", "ray"):
            continue
        ratios = [
            f"{seconds / base:.2f}" if (base := by_case.get((case, other))) else "n/a" for other in ("bare", "stock")
        ]
        rows.append([case, engine, f"{seconds * 1000:.0f}", *ratios])
    heads = ["case", "engine", "ms per round", "/ plain torch", "/ Flower's simulation"]
    return f"{source(BENCH)} Medians of the repeats.\n\n{table(heads, rows)}"


def commands(folder: str) -> str:
    """The first block of commands of an experiment's page.

    Raises:
        ValueError: the page has none, so that its figures could not be made again.
    """
    text = (HERE / folder / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(?:(?<=\n\n)(?: {4}.+\n)+|^```\w*\n.*?^```)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"experiments/{folder}/README.md has no block of commands")
    return "\n".join(
        line.removeprefix("    ") for line in found[0].strip("\n").splitlines() if not line.startswith("```")
    )


def used() -> list[str]:
    """The CSVs behind the page."""
    top = LEADERBOARD if (HERE / LEADERBOARD).is_file() else DATA_SETS
    return [top, *decided(), *judged(), next(name for name in COSTS if (HERE / name).is_file()), BENCH]


def files() -> set[str]:
    """Paths in the repository that the page links to: CSVs and registrations."""
    found = {f"experiments/{name}" for name in used()}
    return found | {path.relative_to(ROOT).as_posix() for path in HERE.glob("*/*.registered.json")}


def pages() -> dict[str, str]:
    """Address -> Markdown of the page."""
    folders = sorted({name.partition("/")[0] for name in used()})
    blocks = [f"### {folder}\n\n```text\n{commands(folder)}\n```" for folder in folders]
    parts = {
        "Leaderboard": [leaderboard()],
        "Registered contrasts": [registered()],
        "Exploratory": [
            "Verdicts without a registration: read them as questions. How many of each kind a file has:",
            exploratory(),
        ],
        "Exchange rates": [exchange()],
        "What the platform costs": [bench()],
        "Commands": ["Run from the root of the repository; each page says what its commands need.", *blocks],
    }
    # The tables need the width that a list of contents at the side would take.
    text = [
        "---\nhide: [toc]\n---",
        "# Results",
        "Made from the CSVs of [experiments](experiments/index.md): no figure on this page is typed. *Registered* "
        "contrasts were fixed before their runs; everything else is exploratory "
        "([why](compare.md#registered-or-exploratory)).",
        "On this page: " + ", ".join(f"[{title}](#{title.lower().replace(' ', '-')})" for title in parts) + ".",
        *(block for title, own in parts.items() for block in (f"## {title}", *own)),
    ]
    return {ADDRESS: "\n\n".join(text) + "\n"}
