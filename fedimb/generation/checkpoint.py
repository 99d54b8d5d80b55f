"""Checkpoint of a generator's training: weights, their average, AdamW's moments and the random state, in one file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.generation.examples import Examples
from fedimb.records import Arrays, load_arrays, save_arrays

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(eq=False)
class TrainingState:
    """What training carries from step to step.

    Attributes:
        parameters: the generator's parameters by name.
        average: their running average, same names.
        optimiser: AdamW over the parameters.
        rng: source of all randomness of the training.
        step: steps done.
        losses: losses of the last steps.
    """

    parameters: dict[str, nn.Parameter]
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW
    rng: torch.Generator
    step: int = 0
    losses: list[float] = field(default_factory=list)


def training_digest(training: Mapping[str, object], seed: int, examples: Examples, start: Mapping[str, Tensor]) -> str:
    """Hash of what must be the same to continue a training: settings, seed, data, initial state."""
    # How often a checkpoint is written does not change the result.
    settings = {key: value for key, value in training.items() if key != "checkpoint_every"}
    whole = hashlib.sha256(f"{sorted(settings.items())} {seed} {list(start)}".encode())
    for tensor in (examples.x, examples.y, examples.d, *start.values()):
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def save_training(path: Path, key: str, state: TrainingState) -> None:
    """Write the checkpoint atomically."""
    arrays: Arrays = {"rng": state.rng.get_state().numpy()}
    for name, parameter in state.parameters.items():
        arrays[f"now/{name}"] = _numpy(parameter)
        arrays[f"average/{name}"] = _numpy(state.average[name])
        for moment in _MOMENTS:
            arrays[f"{moment}/{name}"] = _numpy(state.optimiser.state[parameter][moment])
    save_arrays(path, arrays, {"key": key, "step": state.step, "losses": state.losses})


def restore_training(path: Path, key: str, state: TrainingState) -> None:
    """Load the checkpoint into a fresh state.

    Raises:
        FedimbError: the file cannot be read.
        ConfigError: it belongs to another training.
    """
    arrays, info = load_arrays(path)
    if info.get("key") != key:
        raise ConfigError(
            f"{path} is the checkpoint of a generator with other settings, seed, data or initial weights: "
            f"delete it, or name another file"
        )
    state.step, state.losses = int(info["step"]), [float(loss) for loss in info["losses"]]
    state.rng.set_state(torch.from_numpy(arrays["rng"].copy()))
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(torch.from_numpy(arrays[f"now/{name}"].copy()))
            state.average[name].copy_(torch.from_numpy(arrays[f"average/{name}"].copy()))
            moments = {m: torch.from_numpy(arrays[f"{m}/{name}"].copy()).to(parameter.device) for m in _MOMENTS}
            state.optimiser.state[parameter] = {"step": torch.tensor(float(state.step)), **moments}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
