"""Every row: the reference that no coreset rule may lose sight of."""

from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, CoresetRule


@register("coreset", "full", keeps_all=True)
class Full(CoresetRule):
    """Keeps all rows, and refuses a smaller budget rather than choosing by some rule of its own."""

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """Raises ConfigError: there is nothing to choose by."""
        raise ConfigError(f"coreset 'full' keeps all rows and was asked for {count} of {len(rows)}: use 'random'")
