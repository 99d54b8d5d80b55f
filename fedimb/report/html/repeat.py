"""What is needed to repeat a study: the hash of each run's configuration and of its partition."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedimb.report.html.classes import partition_of
from fedimb.study.results import StudyResults

_WHOLE_UP_TO = 40
"""Number of runs above which hashes are shortened to 12 digits, which `fedimb show` also accepts."""


@dataclass(frozen=True)
class Hashes:
    """One row of a setting: each run as (seed, status, hashes of its configuration and its identity, error)."""

    setting: str
    label: str
    prior: str
    runs: Sequence[tuple[int, str, str, str, str]]


@dataclass(frozen=True)
class Repeat:
    """Hashes of all runs, and of partitions as (setting, seed, hash)."""

    rows: Sequence[Hashes]
    partitions: Sequence[tuple[str, int, str]]


def hashes(study: StudyResults) -> Repeat:
    """The hashes of a study's runs by row, and of the partitions of its settings and seeds."""
    digits = None if len(study.results) <= _WHOLE_UP_TO else 12
    rows = []
    for setting in study.settings:
        for label in study.labels:
            if own := study.of(setting, label):
                priors = sorted({r.prior for r in own if r.prior != "none"})
                runs = [(r.seed, r.status, r.sha[:digits], r.identity[:12], r.error) for r in own]
                rows.append(Hashes(setting, label, ", ".join(priors), runs))
    found: dict[tuple[str, int], set[str]] = {}
    for folder, key in {r.folder: (r.setting, r.seed) for r in study.results if r.folder is not None}.items():
        if sha := partition_of(Path(str(folder))).get("sha"):
            found.setdefault(key, set()).add(str(sha)[:digits])
    partitions = [(setting, seed, sha) for (setting, seed), shas in sorted(found.items()) for sha in sorted(shas)]
    return Repeat(rows, partitions)
