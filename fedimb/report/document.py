"""The report of a run or a study as an object: shown by notebooks, saved to a file, the same page as the commands'."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.report.html.page import page
from fedimb.report.html.run import study_of_run
from fedimb.rundir.result import RunResult
from fedimb.study.compare import Compared, margin_of
from fedimb.study.folders import collect
from fedimb.study.results import StudyResults
from fedimb.study.statistics import statistics


@dataclass(frozen=True)
class Report:
    """A report, as `fedimb.make_report` returns it.

    Attributes:
        text: the whole HTML document; it needs no network and no other file.
    """

    text: str

    def save(self, path: str | Path) -> Path:
        """Write it to a file; returns the path."""
        write_atomic(Path(path).absolute(), self.text.encode())
        return Path(path)

    def __repr__(self) -> str:
        return f"Report({len(self.text):,} characters; save(path) writes it)"

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style and the notebook's do not meet."""
        text = escape(self.text, quote=True).replace("\n", "&#10;")  # no blank line ends it in a page of Markdown
        style = "width: 100%; height: 46rem; border: 1px solid #d9d9d9"
        return f'<iframe title="fedimb report" style="{style}" srcdoc="{text}"></iframe>'


def study_page(study: StudyResults, folder: Path) -> str:
    """The page of a study in a folder, with the margin of equivalence that the study names."""
    if not any(result.status == "finished" for result in study.results):
        return page(study)  # says that there is nothing
    return page(study, statistics(study, margin=margin_of(folder)))


def report_of(what: RunResult | Compared | str | Path) -> Report:
    """See `fedimb.api.make_report`."""
    if isinstance(what, Compared):
        return Report(study_page(what.results, what.folder))
    folder = what.folder if isinstance(what, RunResult) else Path(what).expanduser()
    if (folder / "config.json").is_file():
        return Report(page(study_of_run(folder)))
    return Report(study_page(collect(folder), folder))
