"""The interface of a conditional generator: a loss per row (to train it and to attack it), and sampling.

A sample is conditioned on a class and a domain, indices into embeddings whose last row (index K of K classes) stands
for "unspecified". Training drops the conditions now and then (classifier-free guidance: Ho & Salimans 2022); a domain
never trained on is sampled as unspecified.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedimb.errors import DataError, RunDiverged
from fedimb.generation.examples import Examples, check_conditions, check_examples, check_sizes, check_trained

Progress = Callable[[int], None]


class Generator(nn.Module):
    """Base class of conditional generators.

    All randomness comes from the `torch.Generator` passed in; initial weights come from ``seed``. The constructor may
    take any of the arguments fedimb passes: ``n_classes``, ``n_domains``, ``shape`` of one row, ``class_names`` and
    ``seed``. Everything needed to sample, including the scale, is in its ``state_dict``.

    Attributes:
        trainable: False for a generator that serves ready-made examples; it has no losses.
        rows: the examples that it serves; None for one that is trained, or that does not name them.
        sample_batch: rows made at once; changing it changes the draws.

    Args:
        n_classes: K, at least 1.
        n_domains: D, at least 1.
        shape: shape of one row; images are (height, width) or (channels, height, width).

    Raises:
        ConfigError: a size below 1.
    """

    trainable: ClassVar[bool] = True
    sample_batch: ClassVar[int] = 256
    rows: Examples | None = None
    centre: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor
    class_seen: Tensor
    domain_seen: Tensor
    cell_seen: Tensor

    def __init__(self, n_classes: int, n_domains: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        check_sizes(n_classes, n_domains, shape)
        self.n_classes, self.n_domains, self.shape = n_classes, n_domains, tuple(shape)
        columns = shape[0] if len(shape) == 1 else 1  # one scale per column of a table, one for all pixels
        for name in ("centre", "spread", "low", "high"):
            self.register_buffer(name, torch.full((columns,), torch.nan))
        # float32, so that averaging counts holders as it does for embedding rows; the last row, "unspecified", is
        # known.
        self.register_buffer("class_seen", torch.cat([torch.zeros(n_classes), torch.ones(1)]))
        self.register_buffer("domain_seen", torch.cat([torch.zeros(n_domains), torch.ones(1)]))
        self.register_buffer("cell_seen", torch.zeros(n_classes + 1, n_domains + 1))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.centre.device

    @property
    def scaled(self) -> bool:
        """Whether `fit_scale` or `set_scale` has been called (or a state with a scale loaded)."""
        return bool(torch.isfinite(self.spread).all())

    def fit_scale(self, examples: Examples) -> None:
        """Fit the scale to examples: images to -1..1 by their range, table columns to mean 0 and standard deviation 1.

        A constant column (or image set) keeps its value. In a federation all clients need the same scale: fit it where
        the data may be seen, or call `set_scale` with agreed values.

        Raises:
            DataError: see `fedimb.generation.examples.check_examples`.
        """
        check_examples(examples, self.n_classes, self.shape)
        x = examples.x.to(torch.float64)
        if len(self.shape) == 1:
            low, high, centre, spread = x.amin(0), x.amax(0), x.mean(0), x.std(0, correction=0)
        else:
            low, high = x.amin().reshape(1), x.amax().reshape(1)
            centre, spread = (low + high) / 2, (high - low) / 2
        # The mean of equal values is off by rounding, so their standard deviation is not exactly 0.
        self.set_scale(centre, torch.where(low == high, 0.0, spread), low, high)

    def set_scale(self, centre: Tensor, spread: Tensor, low: Tensor, high: Tensor) -> None:
        """Set the scaling of rows, ``(x - centre) / spread``, and the range samples are clipped to.

        Each is [columns] for tables and [1] for images; a spread of 0 counts as 1.

        Raises:
            DataError: a value that is not finite, a negative spread, or low above high.
        """
        given = torch.stack([part.to(torch.float64).reshape(self.centre.shape) for part in (centre, spread, low, high)])
        if not bool(torch.isfinite(given).all()) or bool((given[1] < 0).any()) or bool((given[2] > given[3]).any()):
            raise DataError("a generator's scale must be finite, its spread at least 0 and its low not above its high")
        given[1, given[1] == 0] = 1.0
        for name, value in zip(("centre", "spread", "low", "high"), given, strict=True):
            getattr(self, name).copy_(value)

    def set_common_scale(self) -> None:
        """Set the scale that clients of a federation share without exchanging anything: images 0..1, columns -8..8."""
        low, high = (-8.0, 8.0) if len(self.shape) == 1 else (0.0, 1.0)
        one = torch.ones_like(self.centre)
        self.set_scale((low + high) / 2 * one, (one if low else one / 2), low * one, high * one)

    def mark_seen(self, examples: Examples) -> None:
        """Remember which classes and domains were trained on."""
        self.class_seen[examples.y.to(self.device)] = 1.0
        domains = self._domain_ids(examples.d)
        self.domain_seen[domains] = 1.0
        self.cell_seen[examples.y.to(self.device), domains] = 1.0

    def known_cells(self) -> Tensor:
        """Which classes it has learned from rows of which domain: bool [K, D], on the CPU.

        Of one that serves ready-made rows, which it holds; if it does not know their domains, they serve any.
        """
        classes, domains = self.class_seen[: self.n_classes].cpu() > 0, self.domain_seen[: self.n_domains].cpu() > 0
        if not self.trainable and not bool(domains.any()):
            return classes[:, None].expand(-1, self.n_domains).clone()
        return self.cell_seen[: self.n_classes, : self.n_domains].cpu() > 0

    def keep_only(self, good: Tensor) -> None:
        """Serve only those of `rows` that are ``good``: bool [rows]. For a generator that is not trained."""
        raise NotImplementedError(f"{type(self).__name__} must implement keep_only(): it serves ready-made rows")

    def composed(self, y: Tensor, d: Tensor) -> Tensor:
        """Which samples would combine a class and a domain never seen together: bool [n].

        They look like the domain, but where domains differ a lot they may not show the class (docs/generators.md):
        check their labels before use, or request domain ``n_domains``, "unspecified". A domain never trained on is
        treated as unspecified anyway.
        """
        y, d = self._conditions(y, d, null=False)
        new: Tensor = (self.cell_seen[y, d] == 0) & (d < self.n_domains)
        return new.cpu()

    def losses(self, x: Tensor, y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        """The training loss of each row, at a noise level drawn for each row.

        Args:
            x: float32 [b, *shape]; y, d: int64 [b], K and D for "unspecified".
            generator: noise and levels are drawn from it.

        Returns:
            float32 [b].

        Raises:
            DataError: see `fedimb.generation.examples`.
        """
        return self.losses_at(x, y, d, self.draw_levels(len(x), generator), generator)

    def losses_at(self, x: Tensor, y: Tensor, d: Tensor, level: Tensor | float, generator: torch.Generator) -> Tensor:
        """`losses` at a given noise level, a number or float32 [b]: 0 is the row itself, 1 is pure noise."""
        check_trained(self.scaled, type(self).__name__)
        y, d = self._conditions(y, d, null=True)
        z = (x.to(self.device) - self.centre) / self.spread
        levels = torch.as_tensor(level, dtype=torch.float32).expand(len(x)).to(self.device)
        return self._losses(z, y, d, levels, generator)

    def sample(self, y: Tensor, d: Tensor, generator: torch.Generator, progress: Progress | None = None) -> Tensor:
        """Generate rows of the given classes and domains.

        Args:
            y: int64 [n] class ids.
            d: int64 [n] domain ids; one not trained on is replaced by "unspecified".
            generator: source of all randomness.
            progress: called with the number of rows just generated.

        Returns:
            float32 [n, *shape] in the units of ``x``, clipped to the range seen in training, on the CPU.

        Raises:
            DataError: a class that was not trained on or an id out of range.
            ConfigError: the generator was never trained.
            RunDiverged: its weights give values that are not finite.
        """
        check_trained(self.scaled, type(self).__name__)
        y, d = self._conditions(y, d, null=False)
        if absent := sorted({int(c) for c in y[self.class_seen[y] == 0]}):
            raise DataError(f"no sample of class {absent}: the generator was trained on none; leave it out of the plan")
        made = torch.empty((len(y), *self.shape))
        with torch.no_grad():
            for start in range(0, len(y), self.sample_batch):
                part = slice(start, start + self.sample_batch)
                z = self._draw(y[part], d[part], generator)
                made[part] = torch.clamp(z * self.spread + self.centre, self.low, self.high).cpu()
                if progress is not None:
                    progress(len(z))
        if not bool(torch.isfinite(made).all()):
            raise RunDiverged(f"{type(self).__name__} gives samples that are not finite: train it again, at a lower lr")
        return made

    def class_rows(self) -> dict[str, int]:
        """State entries with one leading row per class: name -> number of classes; the row after is "unspecified"."""
        return {"class_seen": self.n_classes, "cell_seen": self.n_classes}

    def domain_rows(self) -> dict[str, int]:
        """As `class_rows`, by domain."""
        return {"domain_seen": self.n_domains}

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """Noise levels float32 [n] in 0..1, as training draws them."""
        raise NotImplementedError(f"{type(self).__name__} must implement draw_levels()")

    def _losses(self, z: Tensor, y: Tensor, d: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement _losses()")

    def _draw(self, y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement _draw()")

    def _conditions(self, y: Tensor, d: Tensor, null: bool) -> tuple[Tensor, Tensor]:
        check_conditions(y, d, self.n_classes, null)
        y, d = y.to(self.device), self._domain_ids(d)
        return y, torch.where(self.domain_seen[d] > 0, d, self.n_domains)

    def _domain_ids(self, d: Tensor) -> Tensor:
        d = d.to(self.device)
        return torch.where((d >= 0) & (d < self.n_domains), d, self.n_domains)  # a device that joined later

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=generator.device).to(self.device)
