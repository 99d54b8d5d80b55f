"""Every finding is planted once; its clean twin, the same data without what was planted, stays silent."""

import logging
from pathlib import Path

import numpy as np
import pytest

from fedimb.data.arrays import SourceData
from fedimb.data.findings import stage
from fedimb.data.findings.finding import ACCEPTABLE, KINDS, Finding, check_accepted
from fedimb.data.findings.look import look_at
from fedimb.data.findings.split import split_findings
from fedimb.data.inputs import TableColumns
from fedimb.data.prepare import prepare, prepare_unsettled
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.data.windows import SignalFacts
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register

N = 200
RNG = np.random.default_rng(0)
Y = np.arange(N) % 4 // 3  # a quarter of class 1
CLEAN = RNG.normal(size=(N, 3)).astype(np.float32)
AGES = RNG.integers(18, 96, N).astype(np.float32)
PICTURES = RNG.random((N, 1, 8, 8)).astype(np.float32)
SITES = np.arange(N) % 3


def table(column=None, names=("a", "b", "c"), **more) -> SourceData:
    """Three columns of noise, the last one replaced."""
    x = CLEAN.copy()
    if column is not None:
        x[:, 2] = column
    columns = TableColumns(names)
    return SourceData(x, Y, ("no", "yes"), scaled=np.ones(3, np.bool_), columns=columns, **more)


def people(number, sex=lambda who: RNG.integers(0, 2, 50)[who]) -> SourceData:
    """Four visits each of 50 people: a measured number, what stays the same, and a number of the person."""
    who = RNG.permutation(np.arange(N) % 50)
    made = table(number(who).astype(np.float32))
    made.x[:, 1] = sex(who)
    return made


def pictures(x, scale=1.0, **more) -> SourceData:
    return SourceData(x, Y, ("no", "yes"), scale=scale, **more)


def placed(values, at):
    """``values`` at every 17th row of ``at``."""
    made = np.array(at, np.float32)
    made[::17] = values
    return made


def encoded(codes) -> SourceData:
    """A column of categories beside two of noise."""
    x = np.concatenate([CLEAN[:, :2], np.eye(int(codes.max()) + 1, dtype=np.float32)[codes]], axis=1)
    names = tuple(f"c{i}" for i in range(x.shape[1] - 2))
    columns = TableColumns(("a", "b", "kind"), {"kind": names})
    return SourceData(x, Y, ("no", "yes"), scaled=np.r_[[True] * 2, [False] * len(names)], columns=columns)


ONE = np.equal(SITES, 1)[:, None, None, None]
THREE = {"sites": SITES, "site_names": ("0", "1", "2")}


def grown(x, site, times):
    """``x`` with the rows of one site multiplied."""
    return np.where((site == SITES).reshape(-1, *[1] * (x.ndim - 1)), x * times, x).astype(np.float32)


def twice(x):
    made = x.copy()
    made[100:110] = made[:10]
    return made


ID = np.arange(N)
PLANTED = {
    # what was planted: (finding, data with it, words of the line, clean twins)
    "0..255": (
        "picture_range",
        pictures(PICTURES * 255),
        "divide_by=255",
        [
            pictures(PICTURES),
            pictures(PICTURES * 255, 1 / 255),
            pictures((PICTURES - 0.5) * 4),
            pictures((PICTURES * 255).astype(np.uint8)),
        ],
    ),
    "mean off": ("picture_range", pictures(PICTURES * 255 - 120), "standardise", [pictures(PICTURES * 2 - 1)]),
    "flat pictures": (
        "picture_range",
        pictures((PICTURES.reshape(N, 64) * 255).round()),
        "0 to 255",
        [pictures(PICTURES.reshape(N, 64)), pictures(RNG.poisson(3, (N, 64)).astype(np.float32))],
    ),
    "one shard of 0..255": (
        "picture_range",
        pictures(grown(PICTURES, 1, 255), **THREE),
        "site 0 (0",
        [pictures(PICTURES, **THREE), pictures(grown(PICTURES, 1, 2) / 2, **THREE)],
    ),
    "one flat shard of 0..255": (
        "picture_range",
        pictures(grown(PICTURES.reshape(N, 64), 1, 255).round(), **THREE),
        "not those of site 1, which reach 255",
        [
            pictures(PICTURES.reshape(N, 64), **THREE),
            pictures(grown(PICTURES[..., :7].reshape(N, 56), 1, 255).round(), **THREE),
            pictures(grown(CLEAN[:, [0] * 64], 1, 255), **THREE),
        ],
    ),
    "a shard of 0 and 1 in uint8": (
        "picture_range",
        pictures(np.where(ONE, PICTURES > 0.5, PICTURES * 255).astype(np.uint8), 1 / 255, **THREE),
        "site 1 (0 to 1): values that are not those of site 0, site 2",
        [
            pictures((PICTURES * 255).astype(np.uint8), 1 / 255, **THREE),
            pictures((PICTURES > 0.5).astype(np.uint8), **THREE),
        ],
    ),
    "test pictures of 0..1": (
        "picture_range",
        pictures(np.where(ONE, PICTURES, PICTURES * 255), official_test=ONE.ravel()),
        "test rows (0",
        [pictures(PICTURES, official_test=ONE.ravel())],
    ),
    "999": (
        "sentinels",
        table(placed(999, AGES)),
        "999 in 12 rows, the other values are 18 to 95",
        [table(AGES), table(placed(99, AGES)), table(AGES * 11)],
    ),
    "9999": ("sentinels", table(placed(9999, AGES)), "missing_values={c: [9999]}", [table(AGES)]),
    "-9": ("sentinels", table(placed(-9, AGES)), "-9 in 12 rows", [table(RNG.integers(-20, 20, N))]),
    "-9 as a code": ("sentinels", table(placed(-9, SITES)), "-9 in 12", [table(SITES), table(placed(9, SITES))]),
    "row number": ("id_column", table(ID), "200 whole numbers that rise or fall", [table(ID % 190), table(ID / 7)]),
    "shuffled row number": (
        "id_column",
        table(RNG.permutation(N)),
        "column 'c': 200 whole numbers that do not repeat",
        [table(RNG.integers(0, 200, N))],
    ),
    "codes of 8 digits": (
        "id_column",
        table(RNG.choice(10**7, N, False) + 9 * 10**7),
        "whole numbers that do not repeat",
        [table(RNG.integers(1, 90, N) * 10**6)],
    ),
    "visits of a person": (
        "id_column",
        people(lambda who: RNG.permutation(50)[who] + 1000),
        "column 'c': 50 whole numbers in 200 rows, for each of which b is the same",
        [
            people(lambda who: RNG.integers(1000, 1050, N)),  # the person is not in it
            people(lambda who: who + 1000, lambda who: who // 10),  # neighbours are alike: something measured
            people(lambda who: who + 1000, lambda who: RNG.integers(0, 2, N)),  # nothing stays with the person
            people(lambda who: who / 7, lambda who: RNG.integers(0, 2, 50)[who]),  # not whole
        ],
    ),
    "patients twice": (
        "id_column",
        table(ID // 2 % 71, ("a", "b", "patient_id")),
        "named like an id",
        [table(ID // 2 % 71, ("a", "b", "paid"))],
    ),
    "a name per row": ("id_column", encoded(ID), "200 different categories", [encoded(ID % 40)]),
    "the label": ("label_column", table(1 - Y), "each of its 2 values", [table(np.where(ID % 40 == 0, Y, 1 - Y))]),
    "codes of the label": ("label_column", table(Y * 10 + SITES), "each of its 6 values", [table(Y + SITES)]),
    "the label as category": ("label_column", encoded(Y * 3 + SITES), "kind", [encoded(SITES)]),
    "one value": ("constant_columns", table(np.full(N, 7)), "column c", [table(np.r_[7, np.full(N - 1, 8)])]),
    "no value": ("constant_columns", table(np.full(N, np.nan)), "no value in any row", [table(placed(np.nan, AGES))]),
    "one category": ("constant_columns", encoded(np.r_[np.zeros(N, np.int64)]), "kind", [encoded(SITES)]),
    "black pictures": (
        "constant_pictures",
        pictures(np.where(ID[:, None, None, None] < 3, 0, PICTURES).astype(np.float32)),
        "3 of 200",
        [pictures(PICTURES)],
    ),
    "a lead that is off": (
        "constant_windows",
        pictures(np.where(ID[:, None, None] < 3, 0, 90 * PICTURES[:, 0]).astype(np.float32), signal=SignalFacts(50.0)),
        "channels 0 (3), 1 (3)",
        [pictures(90 * PICTURES[:, 0], signal=SignalFacts(50.0))],
    ),
    "rows twice": (
        "repeated_rows",
        SourceData(twice(CLEAN), Y, ("no", "yes")),
        "10 of 200 are identical",
        [SourceData(CLEAN, Y, ("no", "yes"))],
    ),
    "pictures twice": ("repeated_rows", pictures(twice(PICTURES)), "10 of 200", [pictures(PICTURES)]),
    "a site of one class": (
        "one_class_sites",
        table(sites=np.where(Y == 1, 0, SITES), site_names=("p", "q", "r")),
        "q (50 of no)",
        [table(sites=SITES, site_names=("p", "q", "r"))],
    ),
    "class nan": (
        "missing_marks",
        SourceData(CLEAN, Y, ("no", "nan")),
        "class 'nan': 50 rows",
        [SourceData(CLEAN, Y, ("no", "none")), SourceData(CLEAN, Y * 0 + SITES % 2, ("no", "yes", "nan"))],
    ),
    "site N/A": (
        "missing_marks",
        table(sites=SITES, site_names=("p", "N/A", "r")),
        "site 'N/A': 67 rows",
        [table(sites=SITES, site_names=("p", "NAB", "r"))],
    ),
    "look-alikes": ("look_alike_names", SourceData(CLEAN, Y, ("Yes", "yes")), "'Yes', 'yes'", [table()]),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found_and_its_twin_is_silent(what):
    name, data, words, twins = PLANTED[what]
    (found,) = [one for one in look_at(data)[0] if one.name == name]
    assert words in found.line
    assert "\n" not in found.line
    for twin in twins:
        assert [one.line for one in look_at(twin)[0] if one.name == name] == []


# A table: (finding, values of its one column, arguments, words of the line, values or arguments of clean twins)
TEXTS = {
    "thousands": (
        "decimal_signs",
        ["7.111", "769", "8.761", "5.769"],
        {},
        "7.111 stands beside 769: if it is 7111",
        [
            ["7.111", "769", "8.76", "5.769"],
            ["7.111", "1769", "8.761"],
            ["0.111", "769", "8.761"],
            ["7.111", "8.761", "9"],
            ["7.1112", "769"],
        ],
    ),
    "NaN": (
        "missing_marks",
        ["1", "NaN", "3", "nan"],
        {},
        "'NaN' in 2 rows and 'nan' in 2 rows beside numbers",
        [["1", "", "3", "NA"]],
    ),
    "null": ("missing_marks", ["1", "null", "3", "4"], {}, "missing=\"['null']\"", [["1", "2", "3", "4"]]),
    "N/A": ("missing_marks", ["1", "N/A", "3", "4"], {}, "'N/A' in 2 rows", [["1", "2", "3", "?"]]),
    "None": ("missing_marks", ["1", "None", "3", "4"], {}, "'None' in 2 rows", [["1", "2", "3", "4"]]),
    "point": ("missing_marks", ["1", ".", "3", "4"], {}, "'.' in 2 rows", [["1", ".5", "3", "4"]]),
    "category": (
        "missing_marks",
        ["1", "N/A", "2", "1"],
        {"categorical": ["v"]},
        "'N/A' in 2 rows",
        [["red", "None", "blue"], ["1", "2"]],
    ),
}


def read(folder: Path, values, **args) -> SourceData:
    lines = "".join(f"{value},{'no' if i < len(values) else 'yes'}\n" for i, value in enumerate([*values, *values]))
    (folder / "t.csv").write_text(f"v,label\n{lines}")
    return TabularCsv(**{"files": str(folder / "t.csv"), "target": "label"} | args).load()


@pytest.mark.parametrize("what", TEXTS)
def test_what_only_the_text_shows_is_found(what, tmp_path):
    name, values, args, words, twins = TEXTS[what]
    (found,) = [one for one in look_at(read(tmp_path, values, **args))[0] if one.name == name]
    assert words in found.line
    for twin in twins:
        assert [one.line for one in look_at(read(tmp_path, twin, **args))[0] if one.name == name] == []


def test_settings_answer_the_question(tmp_path):
    european = read(tmp_path, ["7.111", "769", "8.761", "5.769"], thousands=".", decimal=",")
    assert european.x[:4, 0].tolist() == [7111, 769, 8761, 5769]
    assert european.findings == ()
    marked = read(tmp_path, ["1", "N/A", "-9.0", "4"], missing=["N/A", -9])
    assert np.isnan(marked.x[:4, 0]).tolist() == [False, True, True, False]
    assert marked.findings == ()
    assert marked.columns.missing == {"v": ("N/A", -9)}
    asked = read(tmp_path, ["1", "N/A", "-9.0", "4"])
    assert np.isnan(asked.x[:4, 0]).tolist() == [False, True, False, False]  # what the run holds once this is accepted
    assert asked.columns.missing == {"v": ("N/A",)}  # rows to predict are read alike


def registered(data: SourceData, name: str) -> dict[str, object]:
    class Planted:
        def fingerprint(self) -> str:
            return name

        def load(self) -> SourceData:
            return data

    register("source", name)(Planted)
    return {"source": {"name": name}, "test": {"name": "stratified", "fraction": 0.25}, "class_order": "fixed"}


IID = {"name": "iid"}
OFFICIAL = {"name": "official"}


def test_what_shows_after_the_cut(toys):
    twins = registered(SourceData(np.concatenate([CLEAN, CLEAN]), np.tile(Y, 2), ("no", "yes")), "looks_twins")
    clean = registered(SourceData(CLEAN, Y, ("no", "yes")), "looks_clean")
    lone = registered(SourceData(CLEAN, Y, ("no", "yes"), official_test=(Y == 0) & (ID < 60)), "looks_lone")
    sites = registered(
        table(sites=SITES, site_names=("p", "q", "r"), official_test=(ID < 60) & ((SITES > 0) | (Y > 0))), "looks_sites"
    )
    absent = registered(SourceData(CLEAN, Y, ("no", "yes", "never")), "looks_absent")

    def found(data, clients=4, **more):
        return [one for one in prepare_unsettled({**data, **more}, IID, clients, 0)[1] if one.name != "repeated_rows"]

    (one,) = found(twins)
    assert (one.name, one.severity) == ("rows_on_two_sides", "note")
    assert "data.split.group=duplicates" in one.line
    assert [one.place for one in found(twins, validation=0.3)] == ["test rows", "validation rows"]
    assert found(clean) == found(clean, validation=0.3) == []
    assert [one.line for one in found(lone, test=OFFICIAL)] == [
        "test set: its 45 rows are all of class no: no other recall is defined"
    ]
    (one,) = found(sites, test=OFFICIAL)
    assert one.line.startswith("test rows of site p (5 of yes)")
    assert [one.name for one in found(sites)] == ["official_test_unused"]
    (one,) = found(clean, clients=2000)
    assert one.name == "clients_beyond_rows"
    half = registered(SourceData(CLEAN, Y, ("no", "yes"), official_test=ID < 100), "looks_half")
    (one,) = found(half)
    assert (one.name, one.severity, one.place) == ("official_test_unused", "note", "data.test=stratified")
    assert "of the source's 100 test rows are trained on; for its own test set" in one.text
    assert found(half, test=OFFICIAL) == []
    federation = prepare_unsettled(absent, IID, 4, 0)[0]
    federation.minority = (1, 2)  # as from a rule of another release; a list of classes is refused before
    (one,) = split_findings(federation, None)
    assert (one.name, one.severity) == ("minority_without_rows", "refuse")
    assert "class never" in one.line
    assert found(absent, minority=[1]) == []


def test_a_patient_on_two_sides_is_refused_whoever_prepare_unsettled(toys, monkeypatch):
    data = registered(SourceData(CLEAN, Y, ("no", "yes"), patients=ID // 4), "looks_patients")
    assert prepare({**data, "validation": 0.3}, IID, 3, 0).store.patients is not None

    def careless(rows, y, fraction, rng, patients=None):
        return rows[::2], rows[1::2]

    monkeypatch.setattr("fedimb.data.prepare.split_fraction", careless)
    with pytest.raises(DataError, match=r"^\d+ patients: rows on two sides of a split .* use a split or partition"):
        prepare({**data, "validation": 0.3}, IID, 3, 0)


def test_a_run_is_refused_asked_or_told_once(toys, caplog, monkeypatch):
    monkeypatch.setattr(stage, "_said", set())
    caplog.set_level(logging.WARNING)
    data = registered(table(placed(999, RNG.permutation(AGES))), "looks_asked")
    with pytest.raises(DataError, match=r"^column 'c': 999 in 12 rows.*data\.accept=\[sentinels\]\)$"):
        prepare(data, IID, 3, 0)
    accepted = {**data, "accept": ["sentinels", "one_class_sites"]}
    assert prepare(accepted, IID, 3, 0).sha == prepare(accepted, IID, 3, 0).sha
    said = [line for line in caplog.messages if "sentinels" in line or "one_class_sites" in line]
    assert [line.split(":")[0] for line in said] == ["accepted sentinels", "note"]
    assert said[1] == "note: data.accept has 'one_class_sites', which was not found in these data"
    refused = registered(pictures(PICTURES * 255), "looks_refused")
    with pytest.raises(DataError, match=r"^pictures: float values from .* to 25\d.*divide them by 255"):
        prepare(refused, IID, 3, 0)


@pytest.mark.parametrize(
    ("accept", "says"),
    [
        (["id_colum"], r"data.accept: no finding 'id_colum'. Did you mean 'id_column'\?"),
        (["picture_range"], "'picture_range' cannot be accepted, since it changes what the numbers mean"),
        ("id_column", "give a list of findings"),
        ([3], "give a list of findings"),
    ],
)
def test_only_findings_that_are_asked_about_or_noted_can_be_accepted(digits, accept, says):
    with pytest.raises(ConfigError, match=says):
        prepare({**digits, "accept": accept}, IID, 3, 0)


def test_several_findings_are_named_with_one_remedy():
    findings = [
        Finding("id_column", "column 'a'", "x"),
        Finding("sentinels", "column 'b'", "y"),
        Finding("repeated_rows", "rows", "z"),
    ]
    with pytest.raises(DataError) as caught:
        stage.settle(findings, ["one_class_sites"])
    assert str(caught.value) == (
        "column 'a': x; column 'b': y (or, if this is as it should be: "
        "data.accept=[one_class_sites,id_column,sentinels])"
    )
    stage.settle(findings, ["id_column", "sentinels"])


def test_every_kind_is_planted_here_and_in_the_docs_with_its_severity():
    planted = {name for name, *_ in [*PLANTED.values(), *TEXTS.values()]}
    after = {
        "patient_on_two_sides",
        "minority_without_rows",
        "rows_on_two_sides",
        "clients_beyond_rows",
        "official_test_unused",
        "one_class_test",
    }
    assert planted | after == set(KINDS)
    page = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip("`"): severity for name, severity, *_ in cells if severity in ("refuse", "ask", "note")}
    assert listed == {name: severity for name, (severity, _) in KINDS.items()}
    assert check_accepted(ACCEPTABLE) == ACCEPTABLE
