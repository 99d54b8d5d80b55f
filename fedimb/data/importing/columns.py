"""What the columns of a table are for, guessed from their names and values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fedimb.data.identifiers import identifier, in_order
from fedimb.data.importing.found import Found
from fedimb.data.sources.table_features import MISSING
from fedimb.data.sources.table_file import number
from fedimb.data.sources.table_opened import OpenedTable
from fedimb.errors import DataError

LABEL = (
    "label", "labels", "target", "class", "classes", "diagnosis", "diagnosis_label", "dx", "outcome", "y", "category",
    "finding_labels", "finding", "severity", "grade", "species", "disease", "num", "result", "response",
)  # fmt: skip
PATIENT = (
    "patient", "patient_id", "patientid", "subject", "subject_id", "subjectid", "person", "person_id", "case_id", "mrn",
    "pid", "lesion_id", "patientnr", "patient_nr", "patient_no", "patient_number", "patientnumber", "patienten_id",
    "patientenid", "patientennr",
)  # fmt: skip
SITE = (
    "site", "site_id", "hospital", "hospital_id", "centre", "center", "centre_id", "center_id", "institution", "clinic",
    "klinik", "care_site_id", "client", "client_id", "device", "scanner",
)  # fmt: skip
SPLIT = ("split", "set", "subset", "partition", "fold", "usage")
SETS = {"train", "training", "val", "validation", "test"}
_BESIDE = ("patient", "site_column", "split_column", "time_column", "id_column")
_MOST = 1000  # distinct values kept of a column
_CATEGORIES = 100  # more distinct texts are free text
_FEW = 10  # distinct whole numbers that may be codes
_CLASSES = 50
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}( .*)?")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}.*)?)?")
_ID = re.compile(r"(^|_)(id|index|uid|key|no|number)$|^unnamed")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_POINTS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?")  # 7.111 and 7.111,5


@dataclass
class ColumnFacts:
    """Distinct values of one column, at most 1,001 of them, and how often each occurs."""

    counts: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    missing: int = 0

    def add(self, text: str) -> None:
        """Count one field."""
        self.rows += 1
        if text in MISSING:
            self.missing += 1
        elif text in self.counts:
            self.counts[text] += 1
        elif len(self.counts) <= _MOST:
            self.counts[text] = 1

    @property
    def values(self) -> list[str]:
        """The distinct values found."""
        return list(self.counts)

    @property
    def numbers(self) -> bool:
        """Whether every value is a number."""
        return bool(self.counts) and all(number(value) is not None for value in self.counts)

    @property
    def whole(self) -> bool:
        """Whether every value is a whole number."""
        return bool(self.counts) and all(re.fullmatch(r"[+-]?\d+(\.0+)?", value) for value in self.counts)

    @property
    def distinct(self) -> bool:
        """Whether no value occurs twice."""
        return len(self.counts) > 1 and max(self.counts.values()) == 1 and not self.missing

    def like(self, pattern: re.Pattern[str]) -> bool:
        """Whether nine in ten values have this form."""
        return bool(self.counts) and sum(bool(pattern.fullmatch(v)) for v in self.counts) >= 0.9 * len(self.counts)


def count_columns(table: OpenedTable, records: Iterable[tuple[str, Sequence[str]]]) -> dict[str, ColumnFacts]:
    """Facts of each column; rows of another width are left to the source to name."""
    facts = {name: ColumnFacts() for name in table.names}
    columns = list(facts.values())
    for _, fields in records:
        if len(fields) == len(columns):
            for one, text in zip(columns, fields, strict=True):
                one.add(text)
    return facts


def plain(name: str) -> str:
    """A column's name for comparison: ``Patient ID`` is patient_id."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def called(names: Iterable[str], words: Sequence[str]) -> str | None:
    """The column with the first of these names."""
    known = {plain(name): name for name in reversed(list(names))}
    return next((known[word] for word in words if word in known), None)


def choose_roles(facts: Mapping[str, ColumnFacts], found: Found, settings: Mapping[str, str]) -> None:
    """Patient, site and split columns, where the user did not name them.

    Args:
        settings: role -> name of the setting, such as ``{"patient": "patient_column"}``; absent roles are not chosen.
    """
    words = {"patient": PATIENT, "site": SITE, "split": SPLIT}
    for role, setting in settings.items():
        if setting in found.source:
            continue
        name = called(facts, words[role])
        if name is None or name == found.source.get("target"):
            found.source[setting] = None
        elif role == "split" and not {value.lower() for value in facts[name].values} <= SETS:
            found.choose(setting, None, f"column '{name}' holds {_listed(facts[name].values)}, not train and test")
        elif role == "site" and len(facts[name].values) < 2:
            found.source[setting] = None
        else:
            found.choose(setting, name, "" if role == "split" else f"by its name; {_distinct(facts[name])}")


def choose_target(facts: Mapping[str, ColumnFacts], outputs: Sequence[str], setting: str, found: Found) -> None:
    """The label's column.

    Raises:
        DataError: no column looks like one.
    """
    if found.source.get(setting):
        return
    if len(outputs) == 1:
        found.choose(setting, outputs[0])
        return
    free = [name for name in facts if 2 <= len(facts[name].values) <= _MOST]
    if (name := called(free, LABEL)) is not None:
        found.choose(setting, name, f"by its name; {_distinct(facts[name])}")
        return
    few = [n for n in free if len(facts[n].values) <= min(_CLASSES, facts[n].rows // 2) and _classes(facts[n])]
    few = [name for name in few if called([name], (*PATIENT, *SITE, *SPLIT)) is None]
    likely = next((name for name in ([*facts][-1:] + [*facts][:1]) if name in few), None)
    if likely is None:
        raise DataError(
            f"no column looks like the label ({', '.join(facts)}): say which with {setting}=COLUMN"
            + (f"; few values have {', '.join(few[:6])}" if few else "")
        )
    found.choose(setting, likely, f"no column is called label, target or class; {_distinct(facts[likely])}")


def choose_features(facts: Mapping[str, ColumnFacts], table: OpenedTable, found: Found) -> None:
    """Which columns are dropped, which are categories, and which marks mean "missing"."""
    source = found.source
    target = source["target"]
    aside = {*(target if isinstance(target, list) else [target])}
    aside |= {source.get(setting) for setting in _BESIDE} | set(source["drop"])
    codes = []
    for name, one in facts.items():
        if name in aside or name in source["categorical"]:
            continue
        if name in table.nominal:
            source["categorical"][name] = list(table.nominal[name])
        elif name in table.odd or one.like(_DATE):
            what = table.odd.get(name, "dates")
            if "date" in what and not source.get("time_column") and one.like(_ISO) and not one.missing:
                found.choose("time_column", name, f"it holds {what}; only data.test=temporal uses it")
            else:
                _drop(found, name, f"holds {what}")
        elif not one.counts:
            _drop(found, name, "holds no value")
        elif one.distinct and (
            not one.numbers or re.search(r"(^|_)(id|index|uid|key|no|number)$|^unnamed", plain(name))
        ):
            _drop(found, name, "has another value in every row, as an id has")
        elif one.numbers:
            if one.whole and 2 < len(one.values) <= _FEW:
                codes.append(name)
        elif marks := _marks(one):
            source["missing_values"][name] = marks
            found.unsure.append(f"missing_values of '{name}': {', '.join(marks)}: they stand among numbers")
        elif len(one.values) <= _CATEGORIES:
            source["categorical"][name] = in_order({identifier(value) for value in one.values})
        else:
            _drop(
                found, name, f"is text of {'more than ' * (len(one.values) > _MOST)}{len(one.values)} different values"
            )
    if codes:
        found.unsure.append(
            f"categorical: {', '.join(codes)} hold few whole numbers and are read as numbers, not codes"
        )


def written_with_commas(facts: Mapping[str, ColumnFacts]) -> list[str]:
    """Columns whose numbers have a decimal comma, as 3,5."""
    return [
        name
        for name, one in facts.items()
        if not one.numbers
        and any("," in value for value in one.counts)
        and all(
            _COMMA.fullmatch(value) or _POINTS.fullmatch(value) or number(value) is not None for value in one.counts
        )
    ]


def points_part_thousands(facts: Mapping[str, ColumnFacts], commas: Sequence[str]) -> str | None:
    """The first of the columns with decimal commas that parts thousands with points, as 7.111,5."""
    return next((n for n in commas if any("." in value and "," in value for value in facts[n].counts)), None)


def _marks(one: ColumnFacts) -> list[str]:
    """The few texts among a column of numbers."""
    texts = [value for value in one.counts if number(value) is None]
    numeric = len(one.counts) - len(texts)
    return texts if len(texts) <= 3 and numeric >= 10 * len(texts) else []


def _classes(one: ColumnFacts) -> bool:
    return one.whole or not one.numbers


def _drop(found: Found, name: str, why: str) -> None:
    found.source["drop"].append(name)
    found.unsure.append(f"drop: '{name}' {why}")


def _distinct(one: ColumnFacts) -> str:
    number_of = f"more than {_MOST:,}" if len(one.values) > _MOST else f"{len(one.values):,}"
    return f"{number_of} different values"


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:6]) + (", ..." if len(values) > 6 else "")
