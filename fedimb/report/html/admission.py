"""What the servers of a report's runs left out, and the scores without each site, as the terminal shows them."""

from collections.abc import Iterable
from dataclasses import dataclass

from fedimb.report.admission import alarm_lines, left_out_lines, without_lines
from fedimb.rundir.result import RunResult
from fedimb.study.results import Result


@dataclass(frozen=True)
class Admission:
    """One run's lines.

    Attributes:
        run: name of the run folder.
        text: the lines.
    """

    run: str
    text: str


def admissions(results: Iterable[Result]) -> list[Admission]:
    """The lines of each finished run that has any; a folder shared by several rows counts once."""
    found: dict[str, Admission] = {}
    for result in results:
        if result.folder is None or result.status != "finished" or result.folder.name in found:
            continue
        if not (result.folder / "result.json").is_file():  # rows of an MLflow store, whose run folders are elsewhere
            continue
        run = RunResult.read(result.folder)
        if lines := [*without_lines(run), *left_out_lines(run), *alarm_lines(run)]:
            found[result.folder.name] = Admission(result.folder.name, "\n".join(lines).rstrip())
    return list(found.values())


__all__ = ["Admission", "admissions"]
