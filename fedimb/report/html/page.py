"""Renders a study as one HTML page; the templates are in the folder ``templates`` and are autoescaped."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from fedimb.errors import ConfigError, FedimbError
from fedimb.report.gains_text import gains_of, gains_table
from fedimb.report.html import bar, classes, comparison, curves, heat, tables
from fedimb.report.html.admission import admissions, subgroups
from fedimb.report.html.explanations import explanations
from fedimb.report.html.headline import missing, sentence
from fedimb.report.html.legend import Entry, foremost, legend
from fedimb.report.html.numbers import HEADLINE, Row, rows_of
from fedimb.report.html.opening import COSTS, Opening, opening
from fedimb.report.html.panels import panels
from fedimb.report.html.repeat import hashes
from fedimb.report.html.tuning import tuning_curves
from fedimb.study.over_sets import OverSets, over_sets
from fedimb.study.results import Setting, StudyResults
from fedimb.study.statistics import Statistics, statistics
from fedimb.study.tau_order import order_sentence

if TYPE_CHECKING:
    from markupsafe import Markup

_LARGE = 60
"""Maximum total of rows; above it only the curve of minority recall is drawn, so that a page stays below 1 MB."""
_MATRICES = 24
"""Maximum number of confusion matrices per page; above it only the control's and the best rows' are shown."""


@dataclass(frozen=True)
class Section:
    """One setting, in the form the template needs."""

    id: str
    setting: Setting
    rows: Sequence[Row]
    ranks: classes.Ranks
    sentence: str
    entries: Sequence[Entry]
    tables: Sequence[tables.Table]
    partition: heat.Heat | None
    partition_png: str
    exposure: Sequence[tuple[str, Sequence[str]]]
    curves: Sequence[str]
    opening: Opening
    recalls: heat.Heat
    confusions: Sequence[tuple[Row, heat.Heat | None, str]]
    confusions_left: int
    costs: Sequence[str]


def page(study: StudyResults, found: Statistics | None = None, over: OverSets | None = None) -> str:
    """Render a study as one self-contained HTML document: no network and no other files.

    Args:
        study: results of the study; their run folders are read for class orders, hashes and the methods' panels.
        found: its statistics; None: `fedimb.study.statistics.statistics` with default arguments.
        over: its statistics over data sets; None: `fedimb.study.over_sets.over_sets`.

    Returns:
        the document's text; the same study gives the same text.

    Raises:
        FedimbError: no run finished.
        ConfigError: jinja2 or matplotlib is not installed.
    """
    if not any(r.status == "finished" for r in study.results):
        raise FedimbError(
            f"no run of {study.name} finished, so there is nothing to report; see their errors and run again"
        )
    rows = {name: rows_of(study, name) for name in study.settings}
    shown = {name: own for name, own in rows.items() if own}
    # The same number for every setting.
    each = max(2, _MATRICES // max(1, len(shown)))
    drawn = curves.CURVES if len(shown) * len(study.labels) <= _LARGE else curves.CURVES[:1]
    found = statistics(study) if found is None else found
    over = over_sets(study, found) if over is None else over
    at_bar = {one.setting: one.label for one in reversed(study.bars)}  # of the lowest minimum count
    sections: list[Section] = []
    for name, own in shown.items():
        said = {row.label: c.verdict for row in own if (c := found.comparisons.get((name, HEADLINE, row.label)))}
        words, key = sentence(own, study.control, said), f"s{len(sections) + 1}"
        sections.append(_section(key, study.settings[name], own, words, each, drawn, at_bar.get(name)))
    comparisons = [(s, comparison.comparison_tables(found, s.setting.name, s.rows)) for s in sections]
    environment = page_templates()
    script = environment.loader.get_source(environment, "open_for_print.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        environment.get_template("page.html").render(
            study=study,
            sections=sections,
            across=tables.across(shown, study.labels) if len(shown) > 1 else [],
            minorities=[_minority(s) for s in sections],
            orders=[classes.head_to_tail(s.setting.train_counts)[-classes.MOST_COLUMNS :] for s in sections],
            missing=missing(shown),
            comparisons=comparisons,
            rankings=comparison.rankings(found),
            notes=found.notes,
            comparing=any(parts for _, parts in comparisons),
            bars=bar.setting_bars(study, found, shown),
            over=None if over is None else bar.data_sets(over, study.labels),
            panels=panels(study.results),
            explanations=explanations(study.results),
            admissions=admissions(study.results),
            subgroups=subgroups(study.results),
            gains=gains_table(gains_of(study)),
            tuning=tuning_curves(study),
            tau_order=order_sentence(study),
            hashes=hashes(study),
            style=environment.loader.get_source(environment, "page.css")[0].strip(),
            script=script,
            script_hash=digest,
            runs=len(study.results),
            finished=sum(r.status == "finished" for r in study.results),
            suspect=sum(r.status == "finished" and bool(r.suspect) for r in study.results),
        )
    )


def _section(
    key: str, setting: Setting, rows: list[Row], words: str, each: int, drawn: Sequence[str], at_bar: str | None
) -> Section:
    ranks = classes.ranks_of(setting, rows)
    entries = legend(rows)
    table = heat.partition_heat(setting)
    with_matrix = [row for row in rows if classes.matrix(row, ranks) is not None]
    kept = with_matrix
    if len(kept) > each:
        kept = [entry.row for entry in foremost(legend(with_matrix), each - 1)]
    order = classes.head_to_tail(setting.train_counts)
    order = order[-classes.MOST_COLUMNS :]
    exposed = [] if setting.counts is None or table is not None else heat.exposure_lines(setting.counts, order)
    confusions = []
    for row in kept:
        small = heat.confusion_heat(row, ranks)
        confusions.append((row, small, "" if small else heat.confusion_png(row, ranks)))
    learnt = [curves.curve_svg(rows, entries, score, f"{key}-{score}") for score in drawn]
    first = opening(key, setting, rows, entries, ranks, at_bar)
    further = [cost for cost in COSTS if cost != first.cost_name]
    spent = [curves.cost_svg(rows, entries, cost, f"{key}-{cost}") for cost in further]
    return Section(
        key,
        setting,
        rows,
        ranks,
        words,
        entries,
        tables.score_tables(rows),
        table,
        "" if table else heat.partition_png(setting),
        exposed,
        [one for one in learnt if one],
        first,
        heat.recall_heat(rows, ranks),
        confusions,
        len(with_matrix) - len(kept),
        [one for one in spent if one],
    )


def _minority(section: Section) -> str:
    """The minority classes as text: by name, or as the rarest ones if class ranks differ between seeds."""
    if section.ranks.moved:
        return f"the {len(section.setting.minority)} rarest classes of each seed"
    named = [section.setting.class_names[c] for c in section.setting.minority[:12]]
    more = len(section.setting.minority) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "") if named else "none"


@cache
def page_templates() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ConfigError("the report needs jinja2: pip install 'fedimb[sim]'") from None
    environment = Environment(
        loader=PackageLoader("fedimb.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breaking"] = _breaking
    return environment


def _breaking(label: str) -> "Markup":
    """A row label that may be wrapped after ``+`` and ``_`` only."""
    from markupsafe import Markup, escape

    return Markup(str(escape(label)).replace("+", "+<wbr>").replace("_", "_<wbr>"))
