"""ARFF (Weka, OpenML) and KEEL .dat: text tables whose header declares each column's type and categories.

`scipy.io.arff` reads neither text columns nor sparse rows nor KEEL's header, and turns identifiers into float64.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fedimb.data.identifiers import identifier
from fedimb.data.sources.files import regular_file
from fedimb.data.sources.table_file import Layout, Record
from fedimb.data.sources.table_opened import OpenedTable, first_of
from fedimb.errors import DataError, nearest

DECLARED = (".arff", ".dat")
_MISSING = ("?", "<null>")
_QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
_ATTRIBUTE = re.compile(rf"({_QUOTED}|[^\s{{]+)\s*(.*)", re.DOTALL)
_FIELD = re.compile(rf"\s*(?:({_QUOTED})|([^,]*?))\s*(?:,|$)")
_NUMBERS = re.compile(r"(?:real|integer|numeric)\b", re.IGNORECASE)
_WORDS = {"string": "", "date": "dates or times"}


@dataclass
class _Header:
    names: list[str] = field(default_factory=list)
    nominal: dict[str, tuple[str, ...]] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)  # columns of text -> what they hold, "" for plain text
    outputs: tuple[str, ...] = ()


def is_declared(path: str, encoding: str = "utf-8") -> bool:
    """Whether the first line that is not a comment begins with @: an ARFF or KEEL header."""
    try:
        with regular_file(path).open(encoding=_encoding(encoding), errors="replace") as lines:
            first = next((text for line in lines if (text := line.strip()) and not text.startswith("%")), "")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    return first.startswith("@")


def open_declared(path: str, layout: Layout) -> OpenedTable:
    """An ARFF or KEEL file. Missing values (``?``, ``<null>``) are empty fields.

    Raises:
        DataError: no such file, a header that cannot be read, no rows; while iterating, a value that its attribute does
            not list, or bytes that are not text in ``layout.encoding``.
    """
    lines = _lines(path, layout.encoding)
    header = _header(path, lines)
    odd = {name: what for name, what in header.text.items() if what}
    rows = first_of(_rows(path, lines, header), path)
    return OpenedTable(path, tuple(header.names), rows, None, header.nominal, odd, outputs=header.outputs)


def _encoding(name: str) -> str:
    return "utf-8-sig" if name.lower().replace("_", "-") in ("utf-8", "utf8") else name


def _lines(path: str, encoding: str) -> Iterator[tuple[int, str]]:
    """(number from 1, stripped text) of each line that is neither blank nor a comment."""
    try:
        with regular_file(path).open(encoding=_encoding(encoding)) as file:
            for number, line in enumerate(file, 1):
                if (text := line.strip()) and not text.startswith("%"):
                    yield number, text
    except UnicodeError as error:
        raise DataError(f"{path} is not text in {encoding} ({error}); give its encoding=...") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _header(path: str, lines: Iterator[tuple[int, str]]) -> _Header:
    header = _Header()
    for number, text in lines:
        place = f"{path} row {number}"
        word, _, rest = text.replace("\t", " ").partition(" ")
        word = word.lower()
        if word == "@attribute":
            _attribute(place, rest.strip(), header)
        elif word in ("@output", "@outputs"):
            header.outputs = tuple(_unquoted(name) for name in _split(rest))
        elif word == "@data":
            if not header.names:
                raise DataError(f"{path}: no @attribute before @data; declare each column")
            for name in header.outputs:
                if name not in header.names:
                    raise DataError(f"{path}: @outputs names '{name}', not an attribute.{nearest(name, header.names)}")
            return header
        elif word not in ("@relation", "@input", "@inputs"):
            raise DataError(f"{place}: '{text[:60]}' is not part of an ARFF or KEEL header; rows come after @data")
    raise DataError(f"{path} has no @data; give an ARFF or KEEL file with rows")


def _attribute(place: str, text: str, header: _Header) -> None:
    if not (match := _ATTRIBUTE.fullmatch(text)):
        raise DataError(
            f"{place}: @attribute without a name; write @attribute NAME numeric or @attribute NAME {{a, b}}"
        )
    name, kind = _unquoted(match[1]), match[2].strip()
    if name in header.names:
        raise DataError(f"{place}: attribute '{name}' occurs twice; rename one")
    if kind.startswith("{"):
        values = tuple(_unquoted(value) for value in _split(kind[1:].rpartition("}")[0])) if "}" in kind else ()
        if not values or "" in values or len({identifier(value) for value in values}) < len(values):
            raise DataError(f"{place}: attribute '{name}' needs {{value, value, ...}}, each once; it has {kind[:60]}")
        header.nominal[name] = values
    elif (word := kind.lower().split(" ")[0]) in _WORDS:
        header.text[name] = _WORDS[word]
    elif not _NUMBERS.match(kind):
        raise DataError(
            f"{place}: attribute '{name}' is of type '{kind[:40]}', which is not read here; use numeric, string or "
            "{value, value, ...}"
        )
    header.names.append(name)


def _rows(path: str, lines: Iterator[tuple[int, str]], header: _Header) -> Iterator[Record]:
    allowed = [(i, name, {*header.nominal[name], ""}) for i, name in enumerate(header.names) if name in header.nominal]
    width = len(header.names)
    for number, text in lines:
        place = f"{path} row {number}"
        fields = _sparse(place, text, header) if text.startswith("{") else _dense(text, width)
        if len(fields) == width:  # else the reader of the table notes a bad row
            for i, name, values in allowed:
                if fields[i] not in values:
                    raise DataError(
                        f"{place}: '{fields[i]}' is not a value that the header lists for '{name}' "
                        f"({', '.join(header.nominal[name][:8])}); fix the row or the header"
                    )
        yield place, fields


def _dense(text: str, width: int) -> list[str]:
    if "'" not in text and '"' not in text:
        fields = [part.strip() for part in text.split(",")]
        if len(fields) == 1 < width:  # the format also allows blanks between values
            fields = text.split()
    else:
        fields = [_unquoted(part) for part in _split(text)]
    return ["" if part in _MISSING else part for part in fields]


def _sparse(place: str, text: str, header: _Header) -> list[str]:
    """``{1 yes, 4 2.5}``: index and value; the others are 0, which is the first one of a listed column."""
    if not text.endswith("}"):
        raise DataError(f"{place}: a sparse row without its closing brace; write {{index value, index value}}")
    fields = [header.nominal[name][0] if name in header.nominal else "0" for name in header.names]
    seen: set[int] = set()
    for part in _split(text[1:-1]) if text[1:-1].strip() else []:
        index, _, value = part.strip().partition(" ")
        if not index.isdecimal() or int(index) >= len(fields) or int(index) in seen or not value.strip():
            raise DataError(f"{place}: '{part}' is not a column's number (from 0, each once) and its value")
        seen.add(int(index))
        fields[int(index)] = "" if value.strip() in _MISSING else _unquoted(value.strip())
    for i, name in enumerate(header.names):
        if name in header.text and i not in seen:
            raise DataError(f"{place}: a sparse row leaves out text column '{name}', which has no 0; write its value")
    return fields


def _split(text: str) -> list[str]:
    """Fields between commas, still quoted."""
    found, at = [], 0
    while at <= len(text):
        match = _FIELD.match(text, at)
        if match is None:  # text after a closing quote: taken up to the next comma
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            found.append(text[at:end].strip())
            at = end + 1
            continue
        found.append(match[1] if match[1] is not None else match[2])
        at = match.end()
        if at == len(text) and not match[0].endswith(","):
            break
    return found


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text
