"""The arithmetic of local training: float32, or bfloat16 on processors that have it.

With ``bf16``, `torch.autocast` computes the model's features and its head with bfloat16 products; the loss, what local
objectives add to it, the gradients' sums, the optimiser and the weights stay float32, and so do scores. Micikevicius et
al., "Mixed Precision Training", ICLR 2018, without loss scaling, which bfloat16's range does not need (Kalamkar et al.,
arXiv 1905.12322).
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.schema import Precision

_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of x86 processors, and of Arm's
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


@cache
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself; one that does not is slower with it than with float32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public ones
    if any(getattr(torch.cpu, name, bool)() for name in names):
        return True
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return False
    return any(_FLAGS & set(line.split()) for line in lines if line.lower().startswith(("flags", "features")))


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse what the device has no arithmetic for.

    Raises:
        ConfigError: ``bf16`` on a processor or GPU without bfloat16.
    """
    if precision == "float32":
        return
    there = torch.cuda.is_bf16_supported(False) if device.type == "cuda" else cpu_has_bf16()
    if not there:
        what = "GPU" if device.type == "cuda" else "processor"
        raise ConfigError(
            f"local.precision={precision}: this {what} has no bfloat16 arithmetic, so that it would be slower than "
            "float32; set local.precision=float32"
        )


def forward_in(precision: Precision, model: Classifier, device: torch.device) -> Forward:
    """The model as inputs -> (features [n, d], logits [n, C]), both float32, computed in this precision.

    Raises:
        ConfigError: see `check_precision`.
    """
    check_precision(precision, device)

    def forward(inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = model.features(inputs)
        return features, model.head(features)

    if precision == "float32":
        return forward

    def forward_bf16(inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            features, logits = forward(inputs)
        return features.float(), logits.float()

    return forward_bf16
