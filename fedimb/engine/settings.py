"""Settings every engine knows, checked before anything heavy is imported."""

from typing import Any

from fedimb.engine.ray_checks import check_settings
from fedimb.errors import ConfigError, nearest

TRAINERS = ("loop", "stacked", "auto")
DEVICES = ("cpu", "cuda", "auto")


def check_engine(engine: dict[str, Any]) -> None:
    """Refuse what an engine would refuse only once the data are prepared and a run folder is there.

    Raises:
        ConfigError: the setting, its value and what to give.
    """
    if engine["name"] in ("ray", "flower"):
        check_settings(engine.get("workers"), engine.get("gpus_per_worker", 0.0), engine.get("address"))
    for key, known in (("trainer", TRAINERS), ("device", DEVICES)):
        wanted = engine.get(key, known[0])
        if wanted not in known:
            choices = f"{', '.join(known[:-1])} or {known[-1]}"
            raise ConfigError(f"engine.{key}={wanted}: give {choices}.{nearest(str(wanted), known)}")
