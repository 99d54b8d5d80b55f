"""none: a client trains on its rows as they are."""

from fedimb.registry import register
from fedimb.training.resamplers.base import Categories, Inputs, Labels, Resampler


@register("resampler", "none", tasks=("multiclass", "multilabel"), unknown_labels=("cells", "coarse"))
class NoResampling(Resampler):
    """The rows as they are."""

    def __init__(self, categories: Categories | None = None) -> None:
        self.categories = categories

    def check(self, input_shape: tuple[int, ...]) -> None:
        """Any data will do."""

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """The same rows."""
        return x, y
