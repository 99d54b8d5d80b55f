"""What samples and weights reveal: every figure of the page's three tables is that of its CSV."""

import csv
import itertools
import re
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "experiments" / "fedssg"
PAGE = (FOLDER / "former.md").read_text(encoding="utf-8")
WAYS = ("pixels", "random_conv", "moved")


def lines_of(name):
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(header):
    """The cells of each row below a header that begins like this."""
    after = PAGE.split(f"\n{header}")[1].splitlines()[2:]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line[:1] == "|", after)
    ]


def assert_rounded(shown, exact):
    """Figures as the page has them, against those of a CSV, which are rounded to four places already."""
    figures = [float(one) for one in re.findall(r"\d*\.\d+|\d+", shown)]
    assert len(figures) == len(exact), shown
    assert np.abs(np.subtract(figures, exact)).max() <= 0.00505, (shown, exact)


def test_the_attack_with_shadow_generators_on_the_page_is_that_of_its_csv():
    rows = table("| rows that teach | classes | scores of non-members | AUC")
    lines = lines_of("membership.csv")
    assert len(rows) == len(lines) == 5
    parts = ("auc", "tpr", "plain_auc", "control_members", "control_non_members")
    for (learned, classes, scores, *cells), line in zip(rows, lines, strict=True):
        assert (learned, classes, scores.replace(",", "")) == (line["learned"], line["classes"], line["non_members"])
        assert int(line["non_members"]) >= 1000, "of fewer the threshold of 1 % is known too badly"
        for cell, part in zip(cells, parts, strict=True):
            assert_rounded(cell, [float(line[f"{part}{end}"]) for end in ("", "_low", "_high")])
        for control in parts[3:]:
            assert float(line[f"{control}_low"]) < 0.5 < float(line[f"{control}_high"])
    floor = next(line for line in lines if line["learned"] == "20")
    for page in (PAGE, (FOLDER.parents[1] / "docs" / "fedssg.md").read_text(encoding="utf-8")):
        assert f"{100 * float(floor['tpr']):.0f} % of the members at" in page
        for name in ("auc", "plain_auc"):
            assert f"{float(floor[name]):.2f}"[1:] in page


def test_real_generators_at_the_gate_are_those_of_the_csv():
    rows, lines = table("| records of the class | flow: refused"), lines_of("leakage_generators.csv")
    assert [row[0] for row in rows] == ["5", "10", "20", "40", "70"]
    for records, *cells in rows:
        for arm, (refused, ratio, auc) in zip(("flow", "ddpm"), (cells[:3], cells[3:]), strict=True):
            own = [line for line in lines if (line["arm"], line["records"]) == (arm, records)]
            assert refused == f"{sum(line['state'] == 'fail' for line in own)} of {len(own)}"
            assert_rounded(ratio, [np.mean([float(line["nearest_ratio"]) for line in own])])
            assert_rounded(auc, [np.mean([float(line["mia_auc"]) for line in own])])


def test_moved_copies_that_the_gate_finds_are_those_of_the_csv():
    rows, lines = table("| copies | pixels in place, 20 |"), lines_of("gate_moves.csv")
    made = {line["made"] for line in lines}
    assert {row[0].split(" (")[0].removesuffix(" images") for row in rows} == made
    for name, *cells in rows:
        ways = itertools.product(WAYS, ("20", "70"))
        for cell, (gate, records) in zip(cells, ways, strict=True):
            about = (gate, name.split(" (")[0].removesuffix(" images"), records)
            own = [line["state"] for line in lines if (line["gate"], line["made"], line["records"]) == about]
            assert cell.split(" [")[0] == f"{own.count('fail')} of {len(own)}", (name, gate, records)
