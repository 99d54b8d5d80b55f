"""Rows of a SQL query, from any database that SQLAlchemy reaches; nothing is written to it."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cached_property, partial
from types import ModuleType
from typing import Annotated, Any, ClassVar
from urllib.parse import quote, unquote_plus

from pydantic import AfterValidator

from fedimb.data.paths import find_data
from fedimb.data.sources.table_arrow import EXACT, EXACT_NARROW, shortest, text_of, truth_words
from fedimb.data.sources.table_file import Record
from fedimb.data.sources.table_numbers import NumberFormat
from fedimb.data.sources.table_opened import OpenedTable
from fedimb.data.sources.tabular_csv import Site, Table
from fedimb.errors import ConfigError, DataError, FedimbError
from fedimb.registry import register

PLACE = "the query"
_READS = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:select|with|from|values|table|pivot|\()", re.I | re.S)
_SECRET = re.compile(r"(pass(word|wd|phrase)?|pwd|secret|token|credential|(api|access|private)_?key)\s*=", re.I)
_PLAIN = (int, str, float, bool, type(None))


def without_password(url: str) -> str:
    """``url`` unchanged. ConfigError, without the URL in it, if it holds a password: settings are stored with a run."""
    if re.match(r"[^:]*://[^:/@]*:.*@", url) or _SECRET.search(unquote_plus(unquote_plus(url))):
        raise ConfigError(
            "source 'sql': url holds a password, and settings are stored with every run: put the URL in an environment "
            "variable, and give its name as url_env=NAME"
        )
    return url


@register("source", "sql")
@dataclass
class Sql(Table):
    """The result of a SQL query as a table: SQLite, DuckDB, PostgreSQL and whatever else SQLAlchemy reaches.

    The query only reads, in a transaction that is never committed; SQLite and DuckDB files are opened read-only. Rows
    are sorted by their content, so that a database may return them in any order. The fingerprint is the query's text
    and a hash of its result, so the query runs once per run, also if the rows are in the cache.

    Args:
        query: one SELECT. Each column of its result is a column of the table.
        url: SQLAlchemy URL without a password, as ``sqlite:///cohort.db``; a relative path of a SQLite or DuckDB file
            is looked up as any other (`fedimb.data.paths`).
        url_env: name of an environment variable that holds the URL, for one with a password. It is stored nowhere.

    Raises:
        ConfigError: neither url nor url_env, or both; a URL with a password; SQLAlchemy or a driver not installed.
    """

    kind: ClassVar[str] = "sql"
    query: str
    _: KW_ONLY
    url: Annotated[str, AfterValidator(without_password)] | None = None
    url_env: str | None = None

    def __post_init__(self) -> None:
        if (self.url is None) == (self.url_env is None):
            raise ConfigError("source 'sql': give url=..., or url_env=NAME for a URL with a password; one of them")
        if self.url is not None:
            without_password(self.url)
        if self.url_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.url_env):
            raise ConfigError("source 'sql': url_env is not the name of an environment variable; give url_env=NAME")
        if not _READS.match(self.query):
            raise ConfigError("source 'sql': query does not begin with SELECT or WITH; give one query that reads rows")
        super().__post_init__()

    def fingerprint(self) -> str:
        """Of the query's text and of its result."""
        digest = hashlib.sha256(self.query.strip().encode())
        digest.update(json.dumps(self._rows_sorted.names).encode())
        for line, _ in self._rows_sorted.lines:
            digest.update(line.encode())
        return f"sql-1-{digest.hexdigest()}"

    def parts(self) -> list[Site]:
        """The result, sorted."""
        return [Site(None, PLACE, lambda _: self._rows_sorted.opened())]

    def _open_new(self, part: Site, expected: object, spelled: Mapping[str, Sequence[str]]) -> OpenedTable:
        return self._read(spelled).opened()  # in the order of the query

    @cached_property
    def _rows_sorted(self) -> "_Result":
        found = self._read({})
        found.lines.sort()
        return found

    def _read(self, spelled: Mapping[str, Sequence[str]]) -> "_Result":
        url = self._url()
        alchemy = load_sqlalchemy()
        with _one_line(alchemy, url):
            engine = _engine(alchemy, url)
            try:
                with engine.connect() as connection:
                    reading = connection.execution_options(no_parameters=True, stream_results=True)
                    result = reading.exec_driver_sql(self.query.strip().rstrip(";"))
                    if not result.returns_rows:
                        raise DataError(f"{PLACE} returns no rows; give a SELECT")
                    found = _Result(tuple(map(str, result.keys())), spelled, _narrow(result), self._numbers)
                    for number, row in enumerate(result, 1):
                        found.add(number, row)
            finally:
                engine.dispose()
        if not found.lines:
            raise DataError(f"{PLACE} returns no rows; check its conditions")
        return found

    def _url(self) -> str:
        if self.url is not None:
            return self.url
        url = os.environ.get(str(self.url_env), "")
        if not url:
            raise ConfigError(f"source 'sql': the environment variable {self.url_env} is not set; set it to the URL")
        return url


class _Result:
    """Rows as JSON text, a tenth of the memory of Python lists; what was odd about each column."""

    def __init__(
        self,
        names: tuple[str, ...],
        spelled: Mapping[str, Sequence[str]],
        narrow: Sequence[bool],
        numbers: NumberFormat,
    ) -> None:
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise DataError(f"{PLACE}: column '{twice}' occurs twice; rename one with AS")
        self.names = names
        self.lines: list[tuple[str, int]] = []
        self.odd: dict[str, str] = {}
        self.inexact: dict[str, str] = {}
        self._narrow, self._plain = narrow, numbers.plain
        self._truth = [truth_words(spelled.get(name, ())) for name in names]

    def add(self, number: int, row: Sequence[Any]) -> None:
        """Add the row with this number."""
        for name, value, narrow in zip(self.names, row, self._narrow, strict=True):
            if type(value) not in _PLAIN and (what := _odd(value)):
                self.odd.setdefault(name, what)
            elif type(value) is float and abs(value) >= (EXACT_NARROW if narrow else EXACT):
                self.inexact.setdefault(name, f"row {number} holds the float {value:.0f}")
            if not self._plain and isinstance(value, float | Decimal) and value == value:
                raise DataError(
                    f"{PLACE}: column '{name}' holds numbers, not their text: leave decimal and thousands out, and "
                    "turn columns of text into numbers in the query"
                )
        if any(self._narrow):
            row = [shortest(v) if few and v is not None else v for v, few in zip(row, self._narrow, strict=True)]
        fields = [text_of(value, truth) for value, truth in zip(row, self._truth, strict=True)]
        self.lines.append((json.dumps(fields), number))

    def opened(self) -> OpenedTable:
        """The rows so far, as a table."""
        return OpenedTable(PLACE, self.names, self._records(), odd=self.odd, inexact=self.inexact, typed=True)

    def _records(self) -> Iterator[Record]:
        for line, number in self.lines:
            yield f"{PLACE} row {number}", json.loads(line)


def _narrow(result: Any) -> list[bool]:
    """Which columns hold floats of 32 bits: DuckDB gives them as Python floats, 0.7 as 0.699999988079071."""
    return [str(column[1]).upper() == "FLOAT" for column in result.cursor.description]


def load_sqlalchemy() -> ModuleType:
    """sqlalchemy. ConfigError if it is not installed."""
    try:
        import sqlalchemy
    except ImportError:
        raise ConfigError("source 'sql' needs SQLAlchemy: pip install 'fedimb[sql]'") from None
    return sqlalchemy


def _odd(value: object) -> str | None:
    if isinstance(value, date | time | timedelta):
        return "dates or times"
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes"
    return "lists or records" if isinstance(value, list | tuple | dict | set) else None


def _engine(alchemy: ModuleType, text: str) -> Any:
    """An engine that opens a database file read-only."""
    url = alchemy.make_url(text)
    create: Callable[..., Any] = partial(alchemy.create_engine, poolclass=alchemy.pool.NullPool)
    kind = url.get_backend_name()
    if kind not in ("sqlite", "duckdb") or url.database in (None, "", ":memory:") or url.database.startswith("file:"):
        return create(url)
    if kind == "duckdb" and url.database.startswith("md:"):  # a service, not a file
        return create(url)
    path = find_data(url.database)
    if path.is_dir():
        raise DataError(f"{url.database} is a folder; give a database file")
    if kind == "duckdb":
        return create(url.set(database=str(path)), connect_args={"read_only": True})
    import sqlite3

    return create("sqlite://", creator=lambda: sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True))


@contextmanager
def _one_line(alchemy: ModuleType, url: str) -> Iterator[None]:
    """Database errors as one DataError without the URL's secrets. The cause is dropped, as its text may hold them."""
    try:
        yield
    except FedimbError:
        raise
    except alchemy.exc.NoSuchModuleError:
        raise ConfigError(f"source 'sql': no driver for '{url.partition(':')[0][:40]}'; install its package") from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"source 'sql': the driver '{error.name}' is not installed: pip install {error.name}"
        ) from None
    except alchemy.exc.ArgumentError:
        raise ConfigError("source 'sql': the URL cannot be read; write it as sqlite:///file.db") from None
    except Exception as error:  # each driver raises its own kinds
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        for secret in _secrets(alchemy, url):
            reason = reason.replace(secret, "***")
        raise DataError(f"{PLACE} failed: {reason}; check the query and the URL") from None


def _secrets(alchemy: ModuleType, url: str) -> list[str]:
    """The URL, and the values in it that may be secret, longest first."""
    try:
        parsed = alchemy.make_url(url)
    except alchemy.exc.ArgumentError:
        return [url]
    values = [url, str(parsed.password or ""), *map(str, parsed.query.values())]
    return sorted({value for value in values if len(value) > 2}, key=len, reverse=True)
