"""A slowly moving copy of a network's last stage, whose maps stand beside those of the trained one.

"Momentum-Anchored Multi-Scale Fusion", arXiv 2605.02292: theta_a <- m theta_a + (1 - m) theta before each training
step, for the last stage alone; the features are the pooled 1 x 1, 3 x 3 and 5 x 5 convolutions of the trained stage's
maps and the pooled maps of the copy, through which no gradient flows. The paper's m is not known to us.
"""

import torch
from torch import Tensor, nn


class EmaAnchor(nn.Module):
    """The copy: buffers, so it is sent, averaged over the clients and stored with the model, and never trained.

    In a federation each client starts a round from the average of the clients' copies: the anchor is global.

    Args:
        stage: what is copied; it is not a submodule here. Without buffers of its own.
        momentum: m, in [0, 1); 0: the copy is the stage itself at every step.
    """

    def __init__(self, stage: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self._names = {name: name.replace(".", "_") for name, _ in stage.named_parameters()}
        for name, parameter in stage.named_parameters():
            self.register_buffer(self._names[name], parameter.detach().clone())

    @torch.no_grad()
    def forward(self, stage: nn.Module, x: Tensor) -> Tensor:
        """What the copy makes of the stage's input x; in training mode it is moved towards the stage first."""
        held = {name: self.get_buffer(own) for name, own in self._names.items()}
        if self.training:
            for name, parameter in stage.named_parameters():
                held[name].lerp_(parameter.detach(), 1 - self.momentum)
        maps: Tensor = torch.func.functional_call(stage, held, (x,))
        return maps
