"""The model card beside predictions: what was trained, on what, and how far each class can be trusted. Markdown."""

import math
import time
from collections.abc import Sequence

import numpy as np

import fedimb
from fedimb.cli.scoring import Scored
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.ratios import ratio
from fedimb.evaluation.thresholds import ChosenThreshold
from fedimb.report.explanations import card_lines
from fedimb.rundir.explanations import read_explanations
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RowResult, RunResult
from fedimb.serverapp.assemble import needs_counts

_FEW = 10  # test rows of a class below which its recall is hardly known


def model_card(result: RunResult, scored: Scored) -> str:
    """The card of a run's model as used for ``scored``, as Markdown ending with a newline."""
    row = next(row for row in result.rows if row.label == scored.label)
    parts = [
        _heading(result, scored),
        _headline(result, row, scored),
        _classes(result, row),
        *([_thresholds(result, scored)] if scored.chosen is not None else []),
        *([explained] if (explained := card_lines(read_explanations(result.folder))) else []),
        _warnings(result, row, scored),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _between(bounds: Sequence[float]) -> str:
    return "-" if not bounds or math.isnan(bounds[0]) else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _heading(result: RunResult, scored: Scored) -> list[str]:
    config = scored.config
    about = config.data.get("about") or {}
    packages = (RunFolder.open(result.folder).read_json("environment.json") or {}).get("packages", {})
    prior = "none: no part of the run reads class counts"
    if needs_counts(config):
        prior = f"{config.prior.provenance} (view {config.prior.view}, weighting {config.prior.weighting})"
    minority = ", ".join(result.class_names[c] for c in result.minority) or "none"
    facts = {
        "run": f"`{result.folder.parent.name}/{result.folder.name}`",
        "row": scored.label,
        **({"model of": result.site} if result.site is not None else {}),
        "seed": result.seed,
        "data trained on": ", ".join(f"{k}={v}" for k, v in config.data["source"].items()),
        **{f"{key} of the data": text for key, text in about.items() if key in ("licence", "citation", "flaws")},
        "clients": f"{config.clients.count}, partition {config.partition['name']}",
        "rounds": config.rounds,
        "calibration": scored.calibration,
        "class prior": prior,
        "minority classes": minority,
        "data scored": f"{scored.source} ({scored.rows:,} rows)",
        **_rule(scored),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "fedimb": f"{fedimb.__version__}, trained with {packages.get('fedimb', 'an unknown version')}",
    }
    rows = [[name, _cell(value)] for name, value in facts.items()]
    return [f"# Model card: {_cell(scored.label)}, seed {result.seed}", "", *_table(["what", "value"], rows)]


def _rule(scored: Scored) -> dict[str, object]:
    if scored.abstain_below is not None:
        return {"no class predicted": f"highest score below {scored.abstain_below:g}: {scored.abstained:,} rows"}
    if scored.chosen is None:
        return {}
    facts: dict[str, object] = {"thresholds": f"for {scored.chosen.aim}, chosen on {scored.chosen.chosen_on}"}
    if scored.abstained:
        facts["no class predicted"] = f"{scored.abstained:,} rows"
    return facts


def threshold_line(one: ChosenThreshold, names: Sequence[str]) -> str:
    """A class's threshold and what it achieves, in words."""
    low, high = one.interval
    precision = "no row predicted" if math.isnan(one.precision) else f"precision {one.precision:.3f}"
    return (
        f"{names[one.class_id]}: score from {one.value:.4g}, recall {one.recall:.3f} (95 % {low:.3f} to {high:.3f}, "
        f"{one.positives:,} rows), {precision}"
    )


def _thresholds(result: RunResult, scored: Scored) -> list[str]:
    assert scored.chosen is not None
    lines = [f"- {_cell(threshold_line(one, result.class_names))}" for one in scored.chosen.achieved]
    intro = f"For {scored.chosen.aim}. Chosen on {scored.chosen.chosen_on}, where they reach:"
    return ["## Thresholds", "", intro, "", *lines]


def _headline(result: RunResult, row: RowResult, scored: Scored) -> list[str]:
    wanted = ("minority_recall", "macro_recall", "min_class_recall", "macro_precision", "macro_specificity", "accuracy")
    names = [name for name in wanted if name in row.final]
    rows = [
        [
            name.replace("_", " "),
            _number(row.final.get(name, math.nan)),
            _between(row.intervals.get(name, [])),
            _number(row.metrics.get(name, math.nan)),
        ]
        for name in names
    ]
    last = scored.config.evaluation.last_k
    head = ["score", "final round", "95 % interval", f"mean of the last {last} rounds"]
    intro = "On the run's own test set; the interval (stratified bootstrap) is over its rows, not over seeds."
    intro += f" The mean is over all scored rounds of the last part of the training if there were fewer than {last}."
    if row.copies > 1:
        intro += f" They are means over {row.copies} sites' models on the same rows, not scores of this one alone."
    if scored.several:
        intro += " Rows have several labels; in these scores one is predicted where its probability is above .5."
    return ["## Test scores", "", intro, "", *_table(head, rows)]


def _classes(result: RunResult, row: RowResult) -> list[str]:
    order = sorted(range(len(result.class_names)), key=lambda c: (-int(result.train_counts[c]), c))
    _, support = hits_and_support(row.tested_matrix)
    rows = []
    for c in order:
        recall, low, high = row.recall[c]
        rows.append(
            [
                _cell(result.class_names[c]) + (" (minority)" if c in result.minority else ""),
                f"{int(result.train_counts[c]):,}",
                f"{support[c]:,.0f}",
                _number(recall),
                _between([low, high]),
                *_beside_recall(row.confusion, c),
            ]
        )
    head = ["class", "training rows", "test rows", "recall", "95 % interval (Wilson)"]
    head += ["precision", "specificity"] * (row.confusion.ndim == 3)
    return ["## Classes, head to tail", "", *_table(head, rows)]


def _beside_recall(tables: np.ndarray, c: int) -> list[str]:
    """Precision and specificity of a class where rows have several labels: there, calling all rows finds them all."""
    if tables.ndim == 2:
        return []
    (rejected, false), (_, hits) = tables[c]
    return [_number(value) for value in ratio([hits, rejected], [hits + false, rejected + false]).tolist()]


def _warnings(result: RunResult, row: RowResult, scored: Scored) -> list[str]:
    names = result.class_names
    hits, support = hits_and_support(row.tested_matrix)
    groups = {
        "No test rows, so recall is undefined and enters no mean": [
            n for n, s in zip(names, support, strict=True) if not s
        ],
        f"Fewer than {_FEW} test rows, so recall is hardly known": [
            n for n, s in zip(names, support, strict=True) if 0 < s < _FEW
        ],
        "No training rows: the model cannot know": [
            n for n, count in zip(names, result.train_counts, strict=True) if not count
        ],
        "Never found in the test set": [n for n, s, hit in zip(names, support, hits, strict=True) if s and not hit],
    }
    lines = [f"- {text}: {', '.join(map(_cell, found))}." for text, found in groups.items() if found]
    lines += [f"- {_cell(warning[0].upper() + warning[1:])}." for warning in scored.warnings]
    if not row.intervals:
        lines.append("- The run computed no intervals of its headline scores (evaluation.bootstrap=0).")
    made = ("sigmoids", "rows") if scored.several else ("the softmax", "classes")
    lines.append(f"- Scores are {made[0]} of calibrated logits: they rank {made[1]} and are no verified probabilities.")
    lines.append("- One run with one seed says nothing of the spread over seeds; compare several before relying on it.")
    return ["## Warnings", "", *lines]
