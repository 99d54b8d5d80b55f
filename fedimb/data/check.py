"""Read a source completely, from a data group or a bare file, to see what it holds before training."""

import csv
from collections.abc import Sequence
from pathlib import Path

from fedimb import registry
from fedimb.data.arrays import SourceData
from fedimb.data.config import DataConfig
from fedimb.data.findings.finding import Finding, check_accepted
from fedimb.data.paths import find_data
from fedimb.data.sources.npz_file import NpzFile, says_signals
from fedimb.data.sources.table_formats import TABLES
from fedimb.data.store import ATTRIBUTES, build_source
from fedimb.data.subgroups import source_to_open
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.plain import Settings

_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def read_source(
    file: str, settings: Sequence[str] = (), source: str | None = None
) -> tuple[str, SourceData, dict[str, object] | None]:
    """(name of the source, all it holds, the data group or None for a bare file).

    Reads the files themselves, not the cache.

    Args:
        file: a data group (.yaml, as configs/data/digits.yaml), or a folder, .zip, .csv or .npz.
        settings: ``key=value`` arguments of the source; only for a bare file.
        source: name of the source that reads a bare file; None: guessed from the file.

    Raises:
        ConfigError: an unreadable data group, a wrong setting, or a file of a type that no source is known to read.
        DataError: no such file, or the source cannot be read.
    """
    path = find_data(file)
    if path.suffix not in (".yaml", ".yml") or path.is_dir():
        chosen = source or guess_source(path)
        return chosen, load_source(_bare(path, chosen, settings)), None
    if settings or source:
        raise ConfigError(f"{path} already configures its source: write settings there")
    group = _group(path)
    config = DataConfig.parse(group)
    return config.source["name"], load_source(source_to_open(group)), group


def load_source(source: Settings) -> SourceData:
    """Read the source ``{name: ..., on_bad: ..., **args}`` completely, without the cache."""
    args = dict(source)
    name, on_bad, attributes = args.pop("name"), args.pop("on_bad", "refuse"), args.pop(ATTRIBUTES, ())
    data = build_source(name, args, on_bad, attributes).load()
    if not isinstance(data, SourceData):
        raise DataError(f"source '{name}' loads a {type(data).__name__}, not SourceData; fix the source")
    return data


def guess_source(path: Path) -> str:
    """The source that reads such a file; ConfigError lists the choices if there is none."""
    if path.is_dir() and any((path / "train").glob("*.npz")):
        return "shards"
    if path.is_dir() or path.suffix.lower() == ".zip":
        return "image_folder"
    if path.suffix.lower() == ".npz":
        return _npz(path)
    if path.suffix.lower() == ".csv":
        return _csv(path)
    if path.suffix.lower() in TABLES:
        return "tabular_csv"
    if path.suffix.lower() == ".json":
        return "leaf_json"
    raise ConfigError(
        f"cannot tell how to read {path}: see what it is with fedimb data import, give a data YAML, or --source NAME"
        f"{nearest('', registry.names('source'))}"
    )


def _npz(path: Path) -> str:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not an .npz file ({error}); write it again with numpy.savez") from None
    if any(name.startswith("train_images") for name in names):
        return "npz"
    with NpzFile(str(path.absolute())) as arrays:
        shape = arrays.shape("x") if "x" in arrays.keys else ()
        return "signals_npz" if says_signals(arrays.keys, shape) else "embeddings_npz"


def _csv(path: Path) -> str:
    """A table of image paths or a table of values, by its first row."""
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            first = [row for row, _ in zip(csv.reader(file), range(2), strict=False)][1:]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error})") from None
    pictures = any(cell.lower().endswith(_PICTURES) for row in first for cell in row)
    return "image_csv" if pictures else "tabular_csv"


def read_settings(words: Sequence[str]) -> Settings:
    """``key=value`` words as settings of a source; ConfigError if one cannot be read."""
    import yaml

    from fedimb.strict_yaml import load_yaml

    args: Settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"cannot read '{word}': expected key=value")
        try:
            # Errors name settings as a run has them: data.on_bad=skip, data.source.size=[32,32]. A sign is itself.
            value = text if len(text) == 1 and not text.isalnum() else load_yaml(text)
            args[key.removeprefix("data.").removeprefix("source.")] = value
        except yaml.YAMLError:
            raise ConfigError(f"cannot read '{word}': write the value as in YAML, a list as [a,b]") from None
    return args


def _bare(path: Path, name: str, settings: Sequence[str]) -> dict[str, object]:
    args = read_settings(settings)
    takes = registry.parameters("source", name)
    place = next((key for key in ("path", "paths", "files", "folder") if key in takes), None)
    if place is None:
        raise ConfigError(f"source '{name}' does not read a file: write a data YAML and check that")
    if "target" in takes and "target" not in args:
        raise ConfigError(f"{path} is a table: give target=COLUMN, or see what is in it with fedimb data import {path}")
    return {"name": name, place: str(path) if place in ("path", "folder") else [str(path)], **args}


def _group(path: Path) -> dict[str, object]:
    import yaml

    from fedimb.strict_yaml import load_yaml

    try:
        group = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(group, dict):
        raise ConfigError(f"{path} is not a mapping: write it like configs/data/digits.yaml")
    inner = group.get("data")  # a group that also chooses a model, like configs/data/cifar10.yaml
    return inner if isinstance(inner, dict) else group


def describe_cut(group: dict[str, object]) -> str:
    """Two lines on the test set, the long tail and the minority that a run with seed 0 would have.

    Raises:
        DataError: the source's rows cannot be cut as the data group says.
    """
    return try_cut(group)[0]


def split_accepted(settings: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """(the findings that a word ``data.accept=[...]`` names, the other words).

    Raises:
        ConfigError: no such finding.
    """
    import yaml

    accepted: tuple[str, ...] = ()
    others = []
    for word in settings:
        key, _, text = word.partition("=")
        if key.removeprefix("data.") == "accept":
            try:
                accepted += check_accepted(yaml.safe_load(text))
            except yaml.YAMLError:
                raise ConfigError(f"cannot read '{word}': write a list, as in data.accept=[id_column]") from None
        else:
            others.append(word)
    return accepted, others


def try_cut(group: dict[str, object]) -> tuple[str, list[Finding]]:
    """What `describe_cut` says, and what is found in the data and in this cut (`fedimb.data.findings`)."""
    from fedimb.data.prepare import prepare_unsettled

    one, findings = prepare_unsettled(group, {"name": "iid"}, clients=1, seed=0)
    text = (
        f"cut with seed 0: {len(one.test):,} rows to test, {sum(map(len, [*one.train, *one.validation])):,} to train "
        f"({len(one.validation[0]):,} of them for validation), imbalance factor {one.imbalance_factor:.1f}\n"
        f"{one.minority_line()}"
    )
    return text, findings
