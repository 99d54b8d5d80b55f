"""A cache of trained generators and their samples, addressed by a hash of everything they depend on.

The rows of a study often differ in how the samples are used, not in the generator: it is trained once for all of them.
A killed training continues from its checkpoint, which is in the cache too.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fedimb import registry
from fedimb.atomic import write_atomic
from fedimb.config.engine_settings import DEVICES
from fedimb.config.parts import device_of, seeded
from fedimb.data.paths import find_data
from fedimb.data.store import cache_dir
from fedimb.errors import ConfigError, nearest
from fedimb.generation.base import Generator, Progress
from fedimb.generation.examples import Examples
from fedimb.generation.label_filter import check_recognisable, recognised_samples, recogniser
from fedimb.generation.training import Training, train_generator
from fedimb.tracking.lock import locked

VERSION = 2  # of the cached content: raise it when the training of generators changes
Working = Callable[[str, int], Progress]
"""(what is done, how many steps) -> a callback for the steps just done."""


def quiet(_what: str, _total: int) -> Progress:
    """A `Working` callback that shows nothing."""
    return lambda _done: None


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that determines a generator, except its examples.

    Attributes:
        generator: ``{name: ..., ...}``; without a name: ``flow`` for images, ``table_flow`` for rows. Besides its own
            arguments it takes ``device``: ``cpu`` (default), ``cuda`` or ``auto``; and ``confidence``: a sample must be
            recognised as its class with this probability by a classifier of the examples, or is drawn again
            (`fedimb.generation.label_filter`), above 0 and below 1; 0 (default): no filter.
        training: training settings.
        n_classes, n_domains, shape, class_names: those of the data.
        seed: of the initial weights and of training.
    """

    generator: Mapping[str, Any]
    training: Training
    n_classes: int
    n_domains: int
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Name of the generator."""
        return str(self.generator.get("name") or ("table_flow" if len(self.shape) == 1 else "flow"))

    @property
    def trainable(self) -> bool:
        """Whether it learns from rows. Raises ConfigError for an unknown name."""
        return bool(getattr(registry.get("generator", self.name).factory, "trainable", True))

    @property
    def confidence(self) -> float:
        """Least probability of its class for a sample; 0: no filter. Raises ConfigError for another value."""
        given = self.generator.get("confidence", 0.0)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < 1:
            raise ConfigError(f"generator confidence={given!r}: give a probability below 1, or 0 for no filter")
        return float(given)

    def build(self) -> Generator:
        """Build the untrained generator. Raises ConfigError for a wrong name, argument or shape, or a missing GPU."""
        args = {key: value for key, value in self.generator.items() if key not in ("name", "confidence")}
        device = _device(str(args.pop("device", "cpu")))
        _ = self.confidence  # refused before any work
        about = {
            "n_classes": self.n_classes,
            "n_domains": self.n_domains,
            "shape": self.shape,
            "class_names": self.class_names,
            "seed": self.seed,
        }
        with seeded(self.seed):
            made: Generator = registry.build("generator", self.name, about, **args)
        return made.to(device)


def _device(wanted: str) -> torch.device:
    if wanted not in DEVICES:
        raise ConfigError(f"generator device={wanted!r}: give one of {', '.join(DEVICES)}.{nearest(wanted, DEVICES)}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("generator device=cuda: torch finds no GPU here; leave it out, or give device: auto")
    return device_of({"device": wanted})


class GeneratorCache:
    """A generator and its samples, read from the cache or computed once and stored there.

    Args:
        config: the generator.
        examples: its training data.
        working: progress display.
    """

    def __init__(self, config: GeneratorConfig, examples: Examples, working: Working = quiet) -> None:
        self.config, self.examples, self.working = config, examples, working
        generator = dict(config.generator)
        generator.pop("confidence", None)  # of the samples, not of the training
        if "path" in generator:  # a pretrained model: another one may be put in its place
            generator["path"] = _contents(str(generator["path"]))
        about = json.dumps([VERSION, asdict(replace(config, generator=generator))], sort_keys=True, default=str)
        sha = hashlib.sha256(about.encode())
        for part in (examples.x, examples.y, examples.d):
            sha.update(part.contiguous().numpy().tobytes())
        self.key = sha.hexdigest()[:32]

    def _file(self, suffix: str) -> Path:
        folder = cache_dir("generators")
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.key}{suffix}"

    @cached_property
    def generator(self) -> Generator:
        """The trained generator; see `fedimb.generation.training.train_generator` for errors."""
        made = self.config.build()
        if not made.trainable:
            return made
        kept = self._file(".safetensors")
        with locked(self._file(".lock"), wait_s=24 * 3600):  # another worker of a study may be training the same one
            if kept.exists():
                made.load_state_dict(load_file(kept))
                return made.eval()
            steps = self.config.training.steps
            train_generator(
                made,
                self.examples,
                self.config.training,
                self.config.seed,
                checkpoint=self._file(".training"),
                progress=self.working("generator", steps),
            )
            write_atomic(kept, save({name: value.cpu().contiguous() for name, value in made.state_dict().items()}))
        return made

    def samples(self, y: Tensor, d: Tensor, seed: int) -> Tensor:
        """Samples float32 [n, *shape] of classes y and domains d (int64 [n]), the same for the same seed.

        Ready-made rows are read anew each time: their file may have changed.

        Raises:
            DataError: see `Generator.sample` and, with a filter, `check_recognisable` and `recognised_samples` of
                `fedimb.generation.label_filter`.
        """
        if not self.config.trainable:
            return self._drawn(y, d, seed)
        asked = hashlib.sha256(y.numpy().tobytes() + d.numpy().tobytes() + str(seed).encode())
        if self.config.confidence:
            asked.update(str(self.config.confidence).encode())
        kept = self._file(f".{asked.hexdigest()[:16]}.safetensors")
        if kept.exists():
            return load_file(kept)["x"]
        x = self._drawn(y, d, seed)
        write_atomic(kept, save({"x": x.contiguous()}))
        return x

    def _drawn(self, y: Tensor, d: Tensor, seed: int) -> Tensor:
        generator, confidence = self.generator, self.config.confidence
        rng, shown = torch.Generator().manual_seed(seed), self.working("samples", len(y))
        if not confidence:
            return generator.sample(y, d, rng, shown)
        check_recognisable(self.examples.y, y, self.config.class_names)
        recognise = recogniser(self.examples, seed)
        return recognised_samples(generator, recognise, confidence, y, d, rng, self.config.class_names, shown)


def _contents(path: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of each file in a folder."""
    place = find_data(path)
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    found = [(file, file.stat()) for file in files]
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in found]
