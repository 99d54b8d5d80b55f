"""Outputs about parts, data, the installation and the benchmark."""

from typing import Any

from fedimb.cli.output.base import Number, Output, Part, Place


class PartSetting(Part):
    """A setting of a part.

    Attributes:
        name: its name.
        default: its default, in YAML; "required" if it has none.
        about: its meaning.
    """

    name: str
    default: str
    about: str


class ListedPart(Part):
    """A part of a run.

    Attributes:
        kind: loss, strategy, aggregator, ...
        name: name to choose it by.
        about: what it does, one sentence.
        prior: class counts it needs: "none", "local counts" or "global counts".
        leaves_a_site: what a site sends when it is used.
        flags: further facts that decide what can be combined.
        settings: its settings.
    """

    kind: str
    name: str
    about: str
    prior: str
    leaves_a_site: str
    flags: str
    settings: list[PartSetting]


class PartsListing(Output):
    """Parts to choose from.

    Attributes:
        parts: fedimb's own and those of installed packages, by kind.
    """

    parts: list[ListedPart]


class Pair(Part):
    """Two parts, and whether they can be combined.

    Attributes:
        first, second: [kind, name]; of two strategies the first is the outer one.
        allowed: whether they can be combined.
        reason: why not.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    allowed: bool
    reason: str | None


class Combinations(Output):
    """Which parts can be combined.

    Attributes:
        pairs: every pair.
    """

    pairs: list[Pair]


class DataDescription(Output):
    """What each client would hold.

    Attributes:
        class_names: by class id.
        minority: ids of the minority classes.
        clients: names of the clients, in the order of counts.
        counts: rows of each class at each client [K][C], validation included.
        test: test rows of each class.
        validation: held-out rows of each class, over all clients.
        imbalance_factor: rows of the largest class by rows of the smallest.
        partition: hash of the partition.
        warnings: classes that cannot be learned or measured, and why.
        picture: the picture drawn; null without --plot FILE.
        croissant: the metadata written; null without --croissant.
        about: what the data's YAML says: source, licence, citation, split, flaws; empty where it says nothing.
    """

    class_names: list[str]
    minority: list[int]
    clients: list[str]
    counts: list[list[int]]
    test: list[int]
    validation: list[int]
    imbalance_factor: Number
    partition: str
    warnings: list[str]
    picture: Place | None
    croissant: Place | None
    about: dict[str, str]


class FindingLine(Part):
    """Something in the data that may mean something else than it seems.

    Attributes:
        name: of the finding, as data.accept takes it.
        severity: refuse, ask or note.
        place: column, site, class or part of the data.
        text: what was found, and what to do.
        accepted: whether data.accept names it.
    """

    name: str
    severity: str
    place: str
    text: str
    accepted: bool


class SplitWritten(Output):
    """A split saved for other tools.

    Attributes:
        file: the CSV: id, side and client of each row.
        rows: number of rows.
        sides: rows on each side: train, validation, test, public, unused.
    """

    file: Place
    rows: int
    sides: dict[str, int]


class DataChecked(Output):
    """What your data hold. The exit code is 2 if a run would refuse them for what was found.

    Attributes:
        source: name of the source that read them.
        rows: number of rows.
        shape: shape of one row.
        class_names: by class id.
        counts: rows of each class.
        patients, sites: how many there are; null if the source names none.
        skipped: rows left out, and why.
        official_test: rows of the official test set; null if there is none.
        cut: what the data group's test split and long tail leave, in words; null for a bare file.
        about: what the data's YAML says: source, licence, citation, split, flaws; empty where it says nothing.
        findings: what looks wrong.
    """

    source: str
    rows: int
    shape: list[int]
    class_names: list[str]
    counts: list[int]
    patients: int | None
    sites: int | None
    skipped: list[str]
    official_test: int | None
    cut: str | None
    about: dict[str, str]
    findings: list[FindingLine]


class DataImported(Output):
    """What was found at a path, and the data YAML that reads it.

    Attributes:
        layout: what the files are, in words.
        source: name of the source that reads them.
        rows: number of rows.
        shape: shape of one row.
        class_names: by class id.
        counts: rows of each class.
        patients, sites: how many there are; null if there are none.
        official_test: rows of the official test set; null if there is none.
        skipped: rows left out, and why.
        unsure: what was guessed and may be wrong.
        settings: the data group that was written.
        file: the YAML.
        run: the command that runs with it; null if it is not in a folder called data.
    """

    layout: str
    source: str
    rows: int
    shape: list[int]
    class_names: list[str]
    counts: list[int]
    patients: int | None
    sites: int | None
    official_test: int | None
    skipped: list[str]
    unsure: list[str]
    settings: dict[str, Any]
    file: Place
    run: str | None


class CropsWritten(Output):
    """Annotated boxes, cut out of their pictures.

    Attributes:
        file: the list of crops, for data=image_csv.
        class_names: classes, also declared ones without a crop.
        counts: crops of each class.
        pictures: pictures with a crop.
        left_out: what was left out or cut as the annotations or settings say, in words.
        skipped: boxes that cannot be used, and why.
        run: the command that runs with them.
    """

    file: Place
    class_names: list[str]
    counts: list[int]
    pictures: int
    left_out: list[str]
    skipped: list[str]
    run: str


class CheckLine(Part):
    """One check.

    Attributes:
        level: "ok", "warn" or "fail".
        name: what was checked.
        found: what was found.
        remedy: what to do about it.
    """

    level: str
    name: str
    found: str
    remedy: str


class Checks(Output):
    """Checks of the installation and the machine. The exit code is 1 if one failed.

    Attributes:
        checks: all checks, in order.
    """

    checks: list[CheckLine]


class NewPart(Output):
    """A package that was written.

    Attributes:
        folder: the package's folder.
        files: its files, relative to the folder.
        next: commands to install, run and test it.
    """

    folder: Place
    files: list[str]
    next: list[str]


class BenchCase(Part):
    """A case of the benchmark.

    Attributes:
        name, about: the case.
        rounds: rounds per run.
        engines: engines it is measured on.
        lacking: why it cannot be measured here; null if it can.
    """

    name: str
    about: str
    rounds: int
    engines: list[str]
    lacking: str | None


class BenchCases(Output):
    """The cases of the benchmark.

    Attributes:
        cases: all, or those named.
        engines: engine -> what it is.
    """

    cases: list[BenchCase]
    engines: dict[str, str]


class BenchResult(Output):
    """A benchmark. The exit code is 1 if a measurement failed, whatever the verdicts, and 130 if it was interrupted.

    Attributes:
        measurements: the lines of bench.csv.
        failed, left_out: measurements that failed, and cases that cannot be measured here.
        files: bench.csv and bench.txt.
    """

    measurements: list[dict[str, Any]]
    failed: list[str]
    left_out: list[str]
    files: list[Place]
