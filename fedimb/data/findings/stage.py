"""Decides on findings: refuses, asks until they are accepted, or prints them once."""

import logging
from collections.abc import Iterable, Sequence

from fedimb.data.findings.finding import Finding
from fedimb.errors import DataError

log = logging.getLogger("fedimb")
_said: set[str] = set()


def unresolved(findings: Iterable[Finding], accept: Sequence[str]) -> list[Finding]:
    """The findings that keep a run from starting: those refused first, then those asked about and not accepted."""
    refused = [one for one in findings if one.severity == "refuse"]
    return refused + [one for one in findings if one.severity == "ask" and one.name not in accept]


def described(finding: Finding, accept: Sequence[str] = ()) -> str:
    """One line: severity, name, place, what was found."""
    severity = "accepted" if finding.name in accept else finding.severity
    return f"{severity} {finding.name}: {finding.line}"


def settle(findings: Sequence[Finding], accept: Sequence[str] = (), setting: str = "data.accept") -> None:
    """Let the data pass, or refuse them. Notes and accepted findings are logged, once per process.

    Args:
        findings: all of them.
        accept: names of findings that the configuration accepts.
        setting: where it does, for messages.

    Raises:
        DataError: a finding is refused, or asked about and not accepted: place, what was found, remedy.
    """
    if stopping := unresolved(findings, accept):
        raise DataError(_refusal(stopping, accept, setting))
    for one in findings:
        _say(described(one, accept))
    for name in accept:
        if not any(one.name == name for one in findings):
            _say(f"note: {setting} has '{name}', which was not found in these data")


def _refusal(stopping: list[Finding], accept: Sequence[str], setting: str) -> str:
    first = stopping[0]
    same = [one for one in stopping if one.severity == first.severity]
    names = dict.fromkeys([*accept, *(one.name for one in same)])
    text = first.line
    if others := same[1:]:
        shown = "; ".join(one.line for one in others[:2]) + (f"; and {len(others) - 2} more" * (len(others) > 2))
        text += f"; {shown}"
    if first.severity == "refuse":
        return text
    return f"{text} (or, if this is as it should be: {setting}=[{','.join(names)}])"


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        log.warning("%s", line)
