"""Random damage to run folders: found and named, or without influence on any result."""

from collections import Counter
from pathlib import Path

import pytest
from fuzz_runs import HARMLESS, cases, edits, flips, judge


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [(flips, 200), (edits, 50)])
def test_every_change_is_found_or_harmless(kind, number, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    counts, missed, unseen = Counter(), [], Counter()
    for case, name, damage in kind(cases(tmp_path / "made"), number):
        (tmp_path / "copy").mkdir(exist_ok=True)
        verdict, done, said = judge(case, name, damage, tmp_path / "copy")
        counts[verdict] += 1
        unseen[name] += verdict == "harmless"
        if verdict == "MISSED":
            missed.append((case.folder.name, case.finished, name, done, said))
    print(dict(counts), {name: n for name, n in unseen.items() if n})
    assert not missed
    assert counts["found"] > 0.7 * number
    strange = [name for name, n in unseen.items() if n and not name.startswith((*HARMLESS, "clients/", "artifacts/"))]
    assert not strange
