"""Random damage to run folders: found and named, or without influence on any result."""

from collections import Counter
from pathlib import Path

import pytest
from fuzz_runs import HARMLESS, cases, edits, flips, judge


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [(flips, 200), (edits, 50)])
def test_every_change_is_found_or_harmless(kind, number, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    counts, missed, unseen, unfinished = Counter(), [], Counter(), []
    for case, name, damage in kind(cases(tmp_path / "made"), number):
        (tmp_path / "copy").mkdir(exist_ok=True)
        verdict, done, said = judge(case, name, damage, tmp_path / "copy")
        counts[verdict] += 1
        if verdict == "harmless":
            unseen[name] += 1
            unfinished += [name] * (not case.finished)
        if verdict == "MISSED":
            missed.append((case.folder.name, case.finished, name, done, said))
    print(dict(counts), dict(unseen))
    assert not missed
    assert counts["found"] > 0.7 * number
    # a resume reads the last checkpoint; the one before is for when that is damaged, and a finished run needs neither
    harmless = (*HARMLESS, "clients/", "artifacts/", "checkpoint.")
    assert not [name for name in unseen if not name.startswith(harmless)]
    assert "checkpoint.safetensors" not in unfinished
