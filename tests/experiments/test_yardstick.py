"""The yardstick's table is what its CSVs give, all its lines hold, and its partitions are those of today."""

import csv
import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "yardstick"

_spec = importlib.util.spec_from_file_location("yardstick_run", FOLDER / "run.py")
assert _spec is not None
assert _spec.loader is not None
run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run)


def test_every_line_holds() -> None:
    found = run.read(FOLDER)
    assert [what for what, _, _, holds in run.checks(found["alpha0.5"], found["alpha0.1"]) if not holds] == []
    assert run.table(found) == (FOLDER / "table.txt").read_text()


def test_the_last_client_has_the_rows_that_its_file_says(tmp_path: Path) -> None:
    run.write_last_client(1, tmp_path)
    with (tmp_path / "last_client.csv").open() as now, (FOLDER / "last_client.csv").open() as committed:
        assert list(csv.DictReader(now)) == [line for line in csv.DictReader(committed) if line["seed"] == "0"]
