"""Tables: text, ARFF, KEEL, Parquet, Arrow, databases, and lists of pictures or DICOM files."""

import csv
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from fedimb import registry
from fedimb.data.importing.columns import (
    ColumnFacts,
    choose_features,
    choose_roles,
    choose_target,
    count_columns,
    points_part_thousands,
    written_with_commas,
)
from fedimb.data.importing.found import Found
from fedimb.data.sources.image_files import open_files
from fedimb.data.sources.image_folder import IMAGES
from fedimb.data.sources.table_file import Layout, number
from fedimb.data.sources.table_formats import has_own_header, open_table
from fedimb.data.sources.table_opened import OpenedTable
from fedimb.errors import ConfigError, DataError
from fedimb.plain import Settings

_ROLES = {"patient": "patient", "site": "site_column", "split": "split_column"}
_SAMPLE = 1 << 16  # bytes read to see how a text file is written
_PROBED = 5000  # files looked at to see whether a folder has pictures
_LISTED = 0.9  # share of a column's values that name a file


def find_table(path: Path, given: Settings) -> Found:
    """A table, or a list of pictures, in one file."""
    text = {} if has_own_header(str(path), str(given.get("encoding", "utf-8"))) else _text_layout(path, given)
    facts, table = _facts(str(path), text | given)
    if text and "target" not in given and (listed := find_image_list(path, facts, text, given)):
        return listed
    found = Found(_kind(path, text), {"name": "tabular_csv", "files": [str(path)], **text} | given)
    _describe_text(found, text)
    return _table(found, facts, table)


def find_tables_of_sites(paths: list[Path], given: Settings) -> Found:
    """Several tables with the same columns: one site per file."""
    text = {} if has_own_header(str(paths[0])) else _text_layout(paths[0], given)
    opened = [open_table(str(path), _layout(text | given)) for path in paths]
    for path, table in zip(paths, opened, strict=True):
        if set(table.names) != set(opened[0].names):
            odd = min(set(table.names) ^ set(opened[0].names))
            raise DataError(f"{paths[0].name} and {path.name} differ in column '{odd}': import each file by itself")
    facts = {name: ColumnFacts() for name in opened[0].names}
    for table in opened:
        for name, one in count_columns(table, table.records).items():
            for text_value, count in one.counts.items():
                facts[name].counts[text_value] = facts[name].counts.get(text_value, 0) + count
            facts[name].rows += one.rows
            facts[name].missing += one.missing
    files = {path.stem: str(path) for path in paths}
    found = Found(f"{len(paths)} tables with the same columns", {"name": "tabular_csv", "files": files, **text} | given)
    found.unsure.append(f"files: each of {', '.join(path.name for path in paths[:4])} is taken as a site of its own")
    found.source["site_column"] = None
    _describe_text(found, text)
    return _table(found, facts, opened[0])


def find_database(path: Path, given: Settings) -> Found:
    """A SQLite or DuckDB file."""
    from fedimb.data.sources.sql import load_sqlalchemy

    kind = "duckdb" if path.suffix.lower() in (".duckdb", ".ddb") else "sqlite"
    url = f"{kind}:///{path}"
    query = given.get("query")
    if not query:
        names = _tables_of(load_sqlalchemy(), url, path)
        if len(names) != 1:
            raise ConfigError(
                f"{path.name} holds {len(names)} tables ({', '.join(names[:8])}): say what to read with "
                'query="SELECT ..."'
            )
        query = f'SELECT * FROM "{names[0]}"'
    found = Found(f"a {'DuckDB' if kind == 'duckdb' else 'SQLite'} database", {"name": "sql", "url": url, **given})
    found.source |= {"query": query}
    source = registry.build(
        "source", "sql", {"on_bad": "refuse"}, url=url, query=query, target=given.get("target", "?")
    )
    table = source.parts()[0].open({})
    return _table(found, count_columns(table, table.records), table)


def find_image_list(path: Path, facts: Mapping[str, ColumnFacts], text: Settings, given: Settings) -> Found | None:
    """A list of pictures below its folder; None if no column names pictures."""
    for root in (path.parent, *sorted(path.parent.glob("*.zip"))):
        if (root.is_dir() or zipfile.is_zipfile(root)) and (named := _files_named(root, facts, IMAGES)):
            break
    else:
        return None
    name, settings = named[0], named[1] | ({} if root.is_dir() else {"root": str(root)})
    found = Found(
        f"a list of pictures ({path.name})", {"name": "image_csv", "path": str(path), "path_column": name}, [], True
    )
    found.source |= {key: value for key, value in text.items() if key in ("delimiter", "encoding")} | settings | given
    _list_columns(found, {n: one for n, one in facts.items() if n != name})
    return found


def find_dicom_list(folder: Path, table: Path, given: Settings) -> Found:
    """A folder of DICOM files and a CSV with their labels."""
    text = _text_layout(table, given)
    facts, _ = _facts(str(table), text | given)
    name = given.get("file_column") or _dicom_column(folder, facts)
    if name is None:
        raise DataError(f"{table.name} has no column that names the DICOM files in {folder}: give file_column=COLUMN")
    settings = {"name": "dicom", "path": str(folder), "labels": str(table), "file_column": name}
    found = Found(f"DICOM files with labels in {table.name}", settings, [], True)
    found.source |= {key: value for key, value in text.items() if key in ("delimiter", "encoding")} | given
    _list_columns(found, {n: one for n, one in facts.items() if n != name}, patient=False)
    return found


def _list_columns(found: Found, facts: Mapping[str, ColumnFacts], patient: bool = True) -> None:
    choose_target(facts, (), "label_column", found)
    roles = {"site": "site_column", "split": "split_column"} | ({"patient": "patient_column"} if patient else {})
    choose_roles({n: one for n, one in facts.items() if n != found.source["label_column"]}, found, roles)
    if "label_separator" not in found.source:
        several = any("|" in value for value in facts[found.source["label_column"]].values)
        found.choose(
            "label_separator", "|" if several else None, "labels hold '|': several per picture" if several else ""
        )


def _table(found: Found, facts: Mapping[str, ColumnFacts], table: OpenedTable) -> Found:
    for name in ("drop", "categorical", "missing_values"):
        empty: object = [] if name == "drop" else {}
        given = found.source.get(name, empty)
        found.source[name] = dict.fromkeys(given) if name == "categorical" and isinstance(given, list) else given
    if commas := written_with_commas(facts):
        takes = registry.parameters("source", found.source["name"])
        if "decimal" in takes and "decimal" not in found.source:
            found.choose("decimal", ",", f"column '{commas[0]}' holds numbers as 3,5")
            if (parted := points_part_thousands(facts, commas)) and "thousands" not in found.source:
                found.choose("thousands", ".", f"column '{parted}' holds numbers as 7.111,5")
        else:
            found.unsure.append(f"categorical: '{commas[0]}' holds numbers with a comma, as 3,5: write a point")
    choose_target(facts, table.outputs, "target", found)
    rest = {name: one for name, one in facts.items() if name != found.source["target"]}
    choose_roles(rest, found, _ROLES)
    if commas and "decimal" in found.source:
        rest = {name: one for name, one in rest.items() if name not in commas}
    choose_features(rest, table, found)
    return found


def _facts(path: str, text: Settings) -> tuple[dict[str, ColumnFacts], OpenedTable]:
    table = open_table(path, _layout(text))
    return count_columns(table, table.records), table


def _layout(text: Settings) -> Layout:
    columns = text.get("columns")
    return Layout(
        text.get("header", True),
        tuple(columns) if columns else None,
        text.get("delimiter", ","),
        text.get("encoding", "utf-8"),
    )


def _text_layout(path: Path, given: Settings) -> Settings:
    """Delimiter, encoding, and whether there is a header."""
    try:
        with path.open("rb") as file:
            start = file.read(_SAMPLE)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} holds binary data, not text: give a table, pictures or arrays")
    encoding = given.get("encoding") or _encoding(path, start)
    lines = [line for line in start.decode(encoding, errors="replace").splitlines() if line.strip()][:50]
    if not lines:
        raise DataError(f"{path} is empty; give a file with rows")
    lines = lines[:-1] if len(lines) > 2 else lines  # the last one may be cut
    delimiter = given.get("delimiter") or max(",;\t|", key=lambda sign: (_width(lines, sign), -",;\t|".index(sign)))
    first = next(csv.reader([lines[0]], delimiter=delimiter, skipinitialspace=True))
    header = given.get("header", not (all(number(field.strip()) is not None for field in first) or _is_data(first)))
    found: Settings = {"delimiter": delimiter, "encoding": encoding, "header": header}
    return found if header else found | {"columns": [f"column_{i + 1}" for i in range(len(first))]}


def _is_data(first: list[str]) -> bool:
    """Most fields of the first row are numbers: it is no header."""
    return sum(number(field.strip()) is not None for field in first) > len(first) / 2


def _width(lines: list[str], sign: str) -> int:
    """Fields per line, if all lines have as many; else 1."""
    widths = {len(row) for row in csv.reader(lines, delimiter=sign, skipinitialspace=True)}
    return widths.pop() if len(widths) == 1 else 1


def _encoding(path: Path, start: bytes) -> str:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _describe_text(found: Found, text: Settings) -> None:
    if text.get("encoding", "utf-8") != "utf-8":
        found.unsure.append(f"encoding={text['encoding']}: the file is not UTF-8; check names with accents")
    if not text.get("header", True) and "columns" in text:
        found.unsure.append("header=false: the first row holds numbers, so columns are named column_1, column_2, ...")


def _kind(path: Path, text: Settings) -> str:
    kinds = {".arff": "an ARFF table", ".dat": "a KEEL table", ".parquet": "a Parquet table", ".pq": "a Parquet table"}
    if text:
        shown = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}.get(text["delimiter"], text["delimiter"])
        return f"a table in text, separated by {shown}"
    return kinds.get(path.suffix.lower(), "an Arrow table")


def _tables_of(alchemy: object, url: str, path: Path) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"
    if url.startswith("duckdb"):
        query = "SELECT table_name AS name FROM information_schema.tables ORDER BY table_name"
    try:
        lister = registry.build("source", "sql", {"on_bad": "refuse"}, url=url, query=query, target="name")
        return [fields[0] for _, fields in lister.parts()[0].open({}).records]
    except DataError as error:
        raise DataError(f"{path.name} holds no tables that can be read ({error})") from None


def _files_named(folder: Path, facts: Mapping[str, ColumnFacts], suffixes: set[str]) -> tuple[str, Settings] | None:
    """The column that names the pictures below a folder, and the settings that make names of its values."""
    if folder.is_dir() and not _has_any(folder, suffixes):
        return None
    files = [name for name in open_files(folder).walk()[0] if PurePosixPath(name).suffix.lower() in suffixes]
    paths, by_name = set(files), {PurePosixPath(name).name for name in files}
    stems = {PurePosixPath(name).stem: name for name in files}
    endings = sorted({PurePosixPath(name).suffix for name in files})
    for name, one in facts.items():
        values = one.values
        if not values or (one.numbers and not one.whole):
            continue
        if _share(values, paths) >= _LISTED:
            return name, {}
        folders = sorted({str(PurePosixPath(file).parent) for file in files})
        below = {} if folders == ["."] else {"folders": folders}
        if _share(values, by_name) >= _LISTED:
            return name, below
        if _share(values, set(stems)) >= _LISTED and len(endings) == 1:
            return name, below | {"suffix": endings[0]}
        if one.whole and len(endings) == 1 and (width := _padded(values, stems)):
            return name, below | {"path_template": f"{{:0{width}d}}{endings[0]}"}
    return None


def _has_any(folder: Path, suffixes: set[str]) -> bool:
    """Whether there is such a file among the first few thousand below a folder."""
    seen = 0
    for _, _, names in os.walk(folder):
        if any(PurePosixPath(name).suffix.lower() in suffixes for name in names):
            return True
        seen += 1 + len(names)
        if seen > _PROBED:
            return False
    return False


def _share(values: list[str], names: set[str]) -> float:
    return sum(value in names for value in values) / len(values)


def _padded(values: list[str], stems: Mapping[str, str]) -> int:
    """The width to which whole numbers are padded in the names of files; 0: they are not."""
    numbers = [re.sub(r"\.0+$", "", value) for value in values]
    for width in range(1, 13):
        if _share([one.zfill(width) for one in numbers], set(stems)) >= _LISTED:
            return width
    return 0


def _dicom_column(folder: Path, facts: Mapping[str, ColumnFacts]) -> str | None:
    files = set(open_files(folder).walk()[0])
    return next((n for n, one in facts.items() if one.values and _share(one.values, files) >= _LISTED), None)
