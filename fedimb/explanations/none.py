"""none: nothing is explained."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fedimb.explanations.base import ClientArrays, ClientRows, Explained, Explanation
from fedimb.explanations.layout import InputLayout
from fedimb.registry import register


@register("explanation", "none")
class NoExplanation(Explanation):
    """Nothing is explained; nothing is asked of the clients for it."""

    flags: ClassVar[dict[str, Any]] = {"sends": ()}
    name = "none"

    def at_client(self, rows: ClientRows) -> Explained:
        """Nothing."""
        return Explained()

    def combine(
        self, replies: Mapping[int, ClientArrays], layout: InputLayout, class_names: Sequence[str]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}
