"""What the servers of a report's runs left out, and the scores without each site, as the terminal shows them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedimb.report.admission import alarm_lines, left_out_lines, without_lines
from fedimb.report.subgroups import subgroup_lines
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
    """What was left out of each finished run, its scores without each site, and its alarms."""
    return _texts(results, lambda run: [*without_lines(run), *left_out_lines(run), *alarm_lines(run)])


def subgroups(results: Iterable[Result]) -> list[Admission]:
    """The scores by subgroup of each finished run that has any."""
    return _texts(results, subgroup_lines)


def _texts(results: Iterable[Result], lines_of: Callable[[RunResult], list[str]]) -> list[Admission]:
    """The lines of each finished run that has any; a folder shared by several rows counts once."""
    found: dict[str, Admission] = {}
    for result in results:
        if result.folder is None or result.status != "finished" or result.folder.name in found:
            continue
        if not (result.folder / "result.json").is_file():  # rows of an MLflow store, whose run folders are elsewhere
            continue
        run = RunResult.read(result.folder)
        if lines := lines_of(run):
            found[result.folder.name] = Admission(result.folder.name, "\n".join(lines).rstrip())
    return list(found.values())


__all__ = ["Admission", "admissions", "subgroups"]
