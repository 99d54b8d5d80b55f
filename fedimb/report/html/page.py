"""The page put together: `page` renders a study; templates are beside this file, autoescaped."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fedimb.errors import ConfigError, FedimbError
from fedimb.report.html import classes, curves, heat, tables
from fedimb.report.html.headline import sentence
from fedimb.report.html.numbers import Row, rows_of
from fedimb.report.html.panels import panels
from fedimb.report.html.recall import recall_svg
from fedimb.report.html.repeat import hashes
from fedimb.study.results import Setting, StudyResults

COSTS = ("bytes", "labels", "client_seconds")
_MATRICES = 24
"""Confusion matrices and pictures of partitions per page; with more rows or settings, those of the control and the best."""


@dataclass(frozen=True)
class Section:
    """One setting as the template shows it."""

    id: str
    setting: Setting
    rows: Sequence[Row]
    ranks: classes.Ranks
    sentence: str
    tables: Sequence[tables.Table]
    partition: heat.Heat | None
    partition_png: str
    exposure: Sequence[tuple[str, Sequence[str]]]
    curves: Sequence[str]
    recall: str
    recalls: heat.Heat
    confusions: Sequence[tuple[Row, heat.Heat | None, str]]
    confusions_left: int
    costs: Sequence[str]


def page(study: StudyResults, statistics: Any = None) -> str:
    """The study as one HTML document that needs nothing else: no network, no script, no file.

    Args:
        study: what came out; run folders its results name are read for class orders, hashes and methods' panels.
        statistics: what `fedimb.study.statistics` made of it, or None: then paired differences with t intervals.

    Returns:
        the document's text; the same study gives the same text.

    Raises:
        FedimbError: no run finished.
        ConfigError: jinja2 or matplotlib is not installed.
    """
    if not any(r.status == "finished" for r in study.results):
        raise FedimbError(f"no run of {study.name} finished, so there is nothing to report; see their errors, run again")
    rows = {name: rows_of(study, name) for name in study.settings}
    shown = {name: own for name, own in rows.items() if own}
    # The same for every setting, so that none is told more about than another.
    each = max(2, _MATRICES // max(1, len(shown)))
    sections = [_section(i, study.settings[name], own, study.control, each) for i, (name, own) in enumerate(shown.items())]
    differences = [(s, tables.difference_table(list(s.rows), DIFFERENCES)) for s in sections]
    environment = _environment()
    script = environment.loader.get_source(environment, "open_for_print.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        environment.get_template("page.html").render(
            study=study,
            sections=sections,
            across=tables.across(shown, study.labels) if len(shown) > 1 else [],
            minorities=[_minority(s) for s in sections],
            orders=[classes.head_to_tail(s.setting.train_counts) for s in sections],
            differences=differences,
            comparing=any(table for _, table in differences),
            panels=panels(study.results),
            hashes=hashes(study),
            style=environment.loader.get_source(environment, "page.css")[0].strip(),
            script=script,
            script_hash=digest,
            runs=len(study.results),
            finished=sum(r.status == "finished" for r in study.results),
        )
    )


DIFFERENCES = ("minority_recall", "macro_recall", "min_class_recall")


def _section(at: int, setting: Setting, rows: list[Row], control: str | None, each: int) -> Section:
    ranks = classes.ranks_of(setting, rows)
    key = f"s{at + 1}"
    table = heat.partition_heat(setting)
    with_matrix = [row for row in rows if classes.matrix(row, ranks) is not None]
    kept = with_matrix
    if len(kept) > each:
        kept = [row for row in curves.chosen(with_matrix, each - 1) if row in with_matrix]
    order = classes.head_to_tail(setting.train_counts)
    exposed = [] if setting.counts is None or table is not None else heat.exposure_lines(setting.counts, order)
    confusions = []
    for row in kept:
        small = heat.confusion_heat(row, ranks)
        confusions.append((row, small, "" if small else heat.confusion_png(row, ranks)))
    drawn = [curves.curve_svg(rows, score, f"{key}-{score}") for score in curves.CURVES]
    spent = [curves.cost_svg(rows, cost, f"{key}-{cost}") for cost in COSTS]
    return Section(
        key,
        setting,
        rows,
        ranks,
        sentence(rows, control),
        tables.score_tables(rows),
        table,
        "" if table else heat.partition_png(setting),
        exposed if len(ranks) <= classes.MOST_COLUMNS else [],
        [one for one in drawn if one],
        recall_svg(rows, ranks, f"{key}-recall"),
        heat.recall_heat(rows, ranks),
        confusions,
        len(with_matrix) - len(kept),
        [one for one in spent if one],
    )


def _minority(section: Section) -> str:
    """The minority classes in words: by name, or by place where they move with the seed."""
    if section.ranks.moved:
        return f"the {len(section.setting.minority)} rarest classes of each seed"
    named = [section.setting.class_names[c] for c in section.setting.minority[:12]]
    more = len(section.setting.minority) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "") if named else "none"


@cache
def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ConfigError("the report needs jinja2: pip install 'fedimb[sim]'") from None
    return Environment(
        loader=PackageLoader("fedimb.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
