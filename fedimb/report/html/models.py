"""Renders the comparison of two models on the same test rows as one HTML page, like `fedimb.report.html.page`."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedimb.report.html.page import page_templates
from fedimb.report.model_pairs import PairTable, method, notes, sentence, subjects, tables
from fedimb.study.model_pairs import ModelPair, SeedPairs


@dataclass(frozen=True)
class _Section:
    """One comparison, in the form the template needs."""

    heading: str
    sentence: str
    subjects: Sequence[tuple[str, str]]
    tables: Sequence[PairTable]
    method: Sequence[str]
    notes: Sequence[str]


def models_page(found: Sequence[ModelPair | SeedPairs]) -> str:
    """Render comparisons (of one pair of runs, or of two rows of a study in each setting) as one HTML page.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    environment = page_templates()
    sections = [
        _Section(
            f"Setting: {one.setting}" if isinstance(one, SeedPairs) else "What came out",
            sentence(one),
            subjects(one),
            tables(one),
            method(one),
            notes(one),
        )
        for one in found
    ]
    labels = [(one.a, one.b) if isinstance(one, SeedPairs) else (one.a.label, one.b.label) for one in found[:1]]
    return str(
        environment.get_template("models.html").render(
            title=" and ".join(labels[0]),
            sections=sections,
            style=environment.loader.get_source(environment, "page.css")[0].strip(),
        )
    )
