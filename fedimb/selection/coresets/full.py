"""Every row: the reference for all coreset rules."""

from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, CoresetRule


@register("coreset", "full", keeps_all=True)
class Full(CoresetRule):
    """Keeps all rows, and refuses a smaller budget rather than choosing by some other rule."""

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """Raises ConfigError: this rule cannot choose."""
        raise ConfigError(f"coreset 'full' keeps all rows and was asked for {count} of {len(rows)}: use 'random'")
