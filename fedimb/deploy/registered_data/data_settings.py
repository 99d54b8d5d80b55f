"""Source settings for data that a hospital registers: from ``key=value`` words, or from a data group."""

from collections.abc import Sequence
from pathlib import Path

from fedimb import registry
from fedimb.config.catalogue import Catalogue
from fedimb.data.check import _bare, _group, guess_source, split_accepted
from fedimb.data.config import DataConfig
from fedimb.data.importing.layouts import DATABASES
from fedimb.data.paths import find_data
from fedimb.deploy.registered_data.source_records import absolute_paths
from fedimb.errors import ConfigError, DataError
from fedimb.plain import Settings


def source_settings(
    site: str,
    path: str,
    source: str | None = None,
    settings: Sequence[str] = (),
    like: str | None = None,
    patient_column: str | None = None,
    classes: Sequence[str] = (),
) -> dict[str, object]:
    """Build source settings ``{name: <source>, on_bad: ..., **args}`` with absolute paths.

    Args:
        site: the node's site; a table's rows are assigned to it, so that messages and ``label_values`` can name it.
        path: file or folder to register.
        source: name of the source; None: guessed from the path.
        settings: ``key=value`` settings of the source, as `fedimb data check` takes them.
        like: a data group (YAML) of the coordinator, or the name of an installed one (``heart_four.yaml``): use its
            settings, with ``path`` instead of its files.
        patient_column: column with patients' ids.
        classes: the class names, in order.

    Raises:
        ConfigError: settings contradict each other, are unknown, or do not apply to the source.
        DataError: the file does not exist.
    """
    file = find_data(path)
    _refuse_query(file, source)
    if like is not None:
        if settings or source:
            raise ConfigError("--like already says how to read the data: leave out --source and key=value settings")
        config = DataConfig.parse(_group(_group_file(like)))
        found = config.source | {"on_bad": config.on_bad}
        _refuse_query(file, found["name"])
        place = next((key for key in ("path", "files") if key in found), None)
        if place is None:
            raise ConfigError(f"{like}: source '{found['name']}' does not read a file; use a data group that does")
        found[place] = str(file) if place == "path" else [str(file)]
    else:
        found = _bare(file, source or guess_source(file), settings)
    takes = registry.parameters("source", found["name"])
    for what, value, names in (
        ("--patient-column", patient_column, ("patient", "patient_column")),
        ("--classes", list(classes) or None, ("classes", "class_names")),
    ):
        if value is not None:
            setting = next((name for name in names if name in takes), None)
            if setting is None or (found["name"], setting) == ("image_folder", "patient"):
                raise ConfigError(f"source '{found['name']}' does not take {what}; leave it out")
            found[setting] = value
    if found["name"] == "tabular_csv" and found.get("files") == [str(file)] and not found.get("site_column"):
        found["files"] = {site: str(file)}
    return absolute_paths(found)


def _refuse_query(file: Path, source: str | None) -> None:
    """Refuse a database: a version is of files, which are verified again before each run and withdrawn from by row."""
    if source == "sql" or (source is None and file.suffix.lower() in DATABASES):
        raise ConfigError(
            f"{file} cannot be registered: a registered data set is a fixed list of records in files, and a query may "
            "give others whenever it is asked. Save its result once, e.g. in DuckDB with COPY (SELECT ...) TO "
            "'cohort.parquet' (FORMAT parquet), and register that file: fedimb node data add cohort.parquet ..."
        )


def accepted_findings(settings: Sequence[str], like: str | None = None) -> tuple[tuple[str, ...], list[str]]:
    """(the findings that the site accepts, the other words): those of ``data.accept=[...]`` and of ``like``."""
    accepted, others = split_accepted(settings)
    if like is not None:
        accepted = (*accepted, *DataConfig.parse(_group(_group_file(like))).accept)
    return tuple(dict.fromkeys(accepted)), others


def _group_file(like: str) -> Path:
    try:
        return find_data(like)
    except DataError as error:
        name = like.removesuffix(".yaml")
        installed = [root / "data" / f"{name}.yaml" for root in Catalogue().roots if name and "/" not in name]
        for file in installed:
            if file.is_file():
                return file
        raise DataError(f"--like {like}: {error}; or name an installed data group (fedimb list data)") from None


def path_of(source: Settings) -> Path:
    """The file or folder that a registered source reads; the first one if there are several."""
    value = next(source[key] for key in ("path", "files", "folder") if key in source)
    if isinstance(value, dict):
        value = next(iter(value.values()))
    return Path(value[0] if isinstance(value, list) else value)
