"""Settings every engine knows, checked before anything heavy is imported."""

from typing import Any

from fedimb.engine.ray_checks import check_settings
from fedimb.errors import ConfigError, nearest

TRAINERS = ("loop", "stacked", "auto")


def check_engine(engine: dict[str, Any]) -> None:
    """Refuse what an engine would refuse only once the data are prepared and a run folder is there.

    Raises:
        ConfigError: the setting, its value and what to give.
    """
    if engine["name"] in ("ray", "flower"):
        check_settings(engine.get("workers"), engine.get("gpus_per_worker", 0.0), engine.get("address"))
    wanted = engine.get("trainer", "loop")
    if wanted not in TRAINERS:
        raise ConfigError(f"engine.trainer={wanted}: give loop, stacked or auto.{nearest(str(wanted), TRAINERS)}")
