"""What sites call the columns, channels or encoder of their rows, and with which settings they read them: it must be
the same, in the same order, at all.

Arrays of one shape average without an error whatever their columns mean: a site whose table has two columns exchanged
would train, and every score would be of a mixture.
"""

import hashlib
import json
from collections.abc import Mapping

from fedimb.contracts.platform import MOST_NAMES
from fedimb.data.inputs import AgreedColumns
from fedimb.data.row_settings import ROW_SETTINGS, as_in_the_file, row_settings, shown
from fedimb.data.store import Store
from fedimb.errors import DataError
from fedimb.plain import Settings
from fedimb.text import clean_text

_HASH = "sha256:"
_SETTINGS = "settings"


def input_names(store: Store, source: Settings) -> str:
    """What a row's inputs are called, as ASCII text: JSON of columns, channels, encoder and the settings of ``source``
    that change values (`fedimb.data.row_settings`); "" if there are none.

    More than `MOST_NAMES` characters are sent as their hash.
    """
    found: dict[str, object] = {}
    if store.columns is not None:
        found["columns"] = list(store.columns.names)
        # Categories are values from the rows: of these only the hash leaves.
        found["categories"] = store.columns.inputs_hash
    if store.signal is not None and store.signal.channels:
        found["channels"] = list(store.signal.channels)
    if store.encoder is not None:
        found["encoder"] = store.encoder
    if settings := row_settings(source):
        found[_SETTINGS] = settings
    if not found:
        return ""
    text = json.dumps(found)
    return text if len(text) <= MOST_NAMES else _HASH + hashlib.sha256(text.encode()).hexdigest()


def check_input_names(names: Mapping[str, str]) -> str | None:
    """Compare what sites call their inputs.

    Args:
        names: site -> what `input_names` gave there.

    Returns:
        What cannot be compared, in words, because some sites name nothing; None otherwise.

    Raises:
        DataError: two sites differ; names both, and the first difference.
    """
    parted = {site: _parted(text) for site, text in names.items()}
    notes = _check_settings({site: settings for site, (_, settings) in parted.items()})
    said = {site: text for site, (text, _) in parted.items() if text}
    for site, text in said.items():
        first = next(iter(said))
        if text != said[first]:
            raise DataError(
                f"{_difference(first, said[first], site, text)}: register the data with the same data group at all "
                "sites (--like FILE), with the same columns in the same order"
            )
    if said and (silent := [site for site in names if site not in said]):
        first = next(iter(said))
        notes.append(f"{', '.join(silent)}: nothing names the columns there; they are taken to be those of {first}")
    return "; ".join(notes) or None


def agreed_settings(names: Mapping[str, str]) -> tuple[Settings, str | None]:
    """The settings that change values, and the encoder of embeddings, that the sites' rows have: what a model must keep
    for rows that it predicts later. Those of the sites that name them; `check_input_names` has found no difference.

    Args:
        names: site -> what `input_names` gave there. Of a site that sent only a hash nothing is known.
    """
    settings: Settings = {}
    encoder: str | None = None
    for text in names.values():
        settings = _parted(text)[1] | settings
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):  # a hash, or made up
            continue
        if isinstance(said, dict) and isinstance(told := said.get("encoder"), str):
            encoder = encoder or told
    return {key: settings[key] for key in ROW_SETTINGS if key in settings}, encoder


def agreed_columns(names: Mapping[str, str]) -> tuple[AgreedColumns | None, tuple[str, ...]]:
    """The columns of tables, and the channels of signals (empty if there are none), that the sites' rows have.

    Those of the sites that name them; `check_input_names` has found no difference. A text that is none is left out.

    Args:
        names: site -> what `input_names` gave there. Of a site that sent only a hash nothing is known.
    """
    columns: AgreedColumns | None = None
    channels: tuple[str, ...] = ()
    for text in names.values():
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):  # a hash, or made up
            continue
        if not isinstance(said, dict):
            continue
        listed, told = _texts(said.get("columns")), said.get("categories")
        if columns is None and listed and isinstance(told, str):
            columns = AgreedColumns(listed, told[:64])
        channels = channels or _texts(said.get("channels"))
    return columns, channels


def _texts(value: object) -> tuple[str, ...]:
    """Distinct texts, as a site listed them; empty if it is no such list."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or len(set(value)) < len(value):
        return ()
    return tuple(value)


def _parted(text: str) -> tuple[str, Settings]:
    """What a site said, without its settings, and these; a text that is no such JSON is kept whole."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):  # a hash, or made up
        return text, {}
    if not isinstance(said, dict) or not isinstance(settings := said.pop(_SETTINGS, None), dict):
        return text, {}
    return json.dumps(said) if said else "", settings


def _check_settings(said: Mapping[str, Settings]) -> list[str]:
    """Refuse sites that read their rows with other settings. A source without a setting says nothing of it: if others
    use it, that is what is returned, in words.

    Raises:
        DataError: two sites differ; names both, and both values.
    """
    notes = []
    for key in dict.fromkeys(key for settings in said.values() for key in settings):
        held = {site: settings[key] for site, settings in said.items() if key in settings}
        first, value = next(iter(held.items()))
        for site, other in held.items():
            if other != value:
                raise DataError(
                    f"rows are read with {_shown(key)}={_value(value)} at {first} and {_value(other)} at "
                    f"{site}: register the data with the same {_shown(key)} at all sites"
                )
        silent = [site for site in said if site not in held]
        if silent and key in ROW_SETTINGS and not as_in_the_file(key, value):
            notes.append(
                f"{', '.join(silent)}: nothing says whether rows are read with {_shown(key)}={_value(value)} there, as "
                f"at {first}; they are taken to be"
            )
    return notes


def _difference(one: str, first: str, other: str, second: str) -> str:
    """The first difference between what two sites call their inputs, in one line."""
    try:
        said, again = json.loads(first), json.loads(second)
        for kind in dict.fromkeys([*said, *again]):
            mine, its = said.get(kind), again.get(kind)
            if mine == its:
                continue
            if kind == "categories":
                return f"the columns of {one} and {other} have other categories or marks of missing values"
            if not (isinstance(mine, list) and isinstance(its, list)):
                return f"{_shown(kind)}: '{_shown(mine)}' at {one}, '{_shown(its)}' at {other}"
            if len(mine) != len(its):
                return f"{one} has {len(mine)} {_shown(kind)}, {other} {len(its)}"
            at = next(i for i, pair in enumerate(zip(mine, its, strict=True)) if pair[0] != pair[1])
            order = " (the same names in another order)" if sorted(map(str, mine)) == sorted(map(str, its)) else ""
            here, there = _shown(mine[at]), _shown(its[at])
            return f"{_shown(kind)[:-1]} {at + 1} is '{here}' at {one} and '{there}' at {other}{order}"
    except (ValueError, AttributeError, TypeError):
        pass  # hashes, or a reply that is no such text: then only that they differ is known
    return f"{one} and {other} name their columns differently"


def _value(value: object) -> str:
    """The value of a setting that a site sent, for a message."""
    return clean_text(shown(value))[:200]


def _shown(name: object) -> str:
    """A name that a site sent, for a message: one line, not long."""
    return clean_text(str(name))[:60]
