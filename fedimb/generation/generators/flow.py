"""Rectified flow on a small UNet: the default for images, measured against DDPM in docs/generators.md."""

from fedimb.generation.examples import images_expected
from fedimb.generation.rectified import RectifiedFlow
from fedimb.generation.unet import ConditionalUNet, default_widths
from fedimb.registry import register


@register("generator", "flow")
class Flow(RectifiedFlow):
    """Generates images by rectified flow on diffusers' UNet: the default for images.

    See `fedimb.generation.rectified`.

    Args:
        n_classes, n_domains, shape: given by fedimb; shape (height, width) or (channels, height, width).
        widths: channels per level, multiples of 8; None: chosen by image size.
        attention: self-attention between pixels at the innermost level.
        steps: Euler steps per sample.
        guidance: 0 is off; above 0 costs diversity.
        seed: of the initial weights (given by fedimb).

    Raises:
        ConfigError: rows that are not images, settings out of range, or diffusers is not installed.
    """

    def __init__(
        self,
        n_classes: int,
        n_domains: int,
        shape: tuple[int, ...],
        *,
        widths: tuple[int, ...] | None = None,
        attention: bool = False,
        steps: int = 10,
        guidance: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(n_classes, n_domains, shape, steps, guidance)
        chosen = widths or default_widths(*images_expected("flow", shape)[1:])
        self.net = ConditionalUNet(n_classes, n_domains, self.shape, chosen, attention, seed, "flow")

    def class_rows(self) -> dict[str, int]:
        return super().class_rows() | {"net.class_embedding.weight": self.n_classes}

    def domain_rows(self) -> dict[str, int]:
        return super().domain_rows() | {"net.domain_embedding.weight": self.n_domains}
