"""Settings of a source that change the values of its rows: of one shape, rows that differ in them mix without an error.

A picture equalised by CLAHE, a spectrogram of other bands, or an embedding divided by its length is another input than
the model was trained on, and every score of it is wrong.
"""

import inspect
from dataclasses import asdict
from typing import Any

from fedimb import registry
from fedimb.data.signal_transforms import Spectrogram
from fedimb.data.sources.clahe import Clahe
from fedimb.plain import Settings

ROW_SETTINGS: Settings = {"clahe": None, "mode": None, "transform": None, "zscore": "channel", "l2_normalise": False}
"""Setting -> its value at which rows are as in their file, as rows of a source without it are; of ``mode`` none: the
number of channels tells pictures apart."""


def row_settings(source: Settings) -> Settings:
    """Those of ``{name: <source>, **args}`` that the source takes, with defaults filled in; without those it has not.

    Example:
        >>> row_settings({"name": "image_folder", "path": "films", "clahe": {"clip": 3}})
        {'clahe': {'clip': 3, 'tiles': 8}, 'mode': 'RGB'}
    """
    name = source.get("name")
    if not isinstance(name, str) or name not in registry.names("source"):
        return {}
    found: Settings = {}
    for key, parameter in registry.parameters("source", name).items():
        value = source.get(key, parameter.default)
        if key in ROW_SETTINGS and value is not inspect.Parameter.empty:
            found[key] = _filled(key, value)
    return {key: found[key] for key in ROW_SETTINGS if key in found}


def as_in_the_file(key: str, value: object) -> bool:
    """Whether a setting leaves rows as they are in their file."""
    return key == "mode" or bool(value == ROW_SETTINGS[key])


def shown(value: object) -> str:
    """A value as it is written in YAML and on the command line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(held)}" for key, held in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _filled(key: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    defaults: dict[str, object] = {"clahe": asdict(Clahe()), "transform": asdict(Spectrogram())}.get(key, {})
    made = {**defaults, **value}
    if key == "transform" and made["hop"] is None:
        made["hop"] = max(1, made["window"] // 2)
    return made
