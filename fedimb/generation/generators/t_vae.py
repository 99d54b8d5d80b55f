"""A variational autoencoder with heavy tails, for rows of numbers: Student-t prior, encoder and decoder.

The model of Kim, Kwon, Cho, Ha, "t3-Variational Autoencoder: Learning Heavy-tailed Data with Student's t and Power
Divergence", ICLR 2024, told class and domain (Sohn, Lee, Yan, NeurIPS 2015). For n columns, m latent dimensions, nu
degrees of freedom, and a learned deviation sigma of each column (Rybkin, Daniilidis, Levine, ICML 2021):

    z ~ t(0, I; nu)         x | z ~ t(f(z), (1 + |z|^2 / nu) / (1 + m / nu) sigma^2; nu + m)
    z | x ~ t(mu(x), S(x) nu / (nu + n); nu + n)

so x and z together, and x alone where f is linear, are t with nu degrees of freedom. The loss is the evidence lower
bound (Kingma, Welling, ICLR 2014), not the paper's gamma-power divergence: as computed there that one is quadratic, so
where f is linear its best S(x) is the same for all x, while the model's own grows with |x|; samples drawn from the
model's prior were then too wide (docs/generators.md). In the limit of large nu this is a Gaussian VAE.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.generation.base import Generator, Progress
from fedimb.generation.categories import check_categories, nearest_categories
from fedimb.generation.examples import columns_expected
from fedimb.registry import register

_LEAST_DEVIATION = 0.05  # of a column's own: without a floor the density of rows learned by heart has no bound


class _Coder(nn.Module):
    """``net(x [b, inputs], y [b], d [b]) -> [b, outputs]``: a residual network told class and domain in every block."""

    def __init__(self, n_classes: int, n_domains: int, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.class_embedding = nn.Embedding(n_classes + 1, width)
        self.domain_embedding = nn.Embedding(n_domains + 1, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.leave = nn.Linear(width, outputs)

    def forward(self, x: Tensor, y: Tensor, d: Tensor) -> Tensor:
        conditions = self.class_embedding(y) + self.domain_embedding(d)
        hidden = self.enter(x) + conditions
        for block in self.blocks:
            hidden = hidden + block(hidden + conditions)
        output: Tensor = self.leave(hidden)
        return output


class _Net(nn.Module):
    """Encoder, decoder, and the decoder's deviation of each column."""

    def __init__(self, n_classes: int, n_domains: int, columns: int, latent: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = _Coder(n_classes, n_domains, columns, 2 * latent, width, depth)
        self.decoder = _Coder(n_classes, n_domains, latent, columns, width, depth)
        self.raw_deviation = nn.Parameter(torch.zeros(columns))

    def deviations(self) -> Tensor:
        """sigma: [columns], in the columns' own deviations."""
        return _LEAST_DEVIATION + nn.functional.softplus(self.raw_deviation)


@register("generator", "t_vae")
class TVae(Generator):
    """Generates rows of a table, or embeddings, by a conditional VAE with Student-t tails.

    It has no noise levels: a row's loss, the negative bound in nats per column, does not depend on the level. A
    constant column stays constant, as samples are clipped to the range seen.

    Args:
        n_classes, n_domains, shape: given by fedimb; shape (columns,).
        df: degrees of freedom nu, above 2; the fewer, the heavier the tails. null: Gaussian.
        latent: latent dimensions m.
        width: of the hidden layers.
        depth: residual blocks of the encoder, and of the decoder.
        categories: of each categorical column and "missing" mark, its first indicator column and the one after its
            last; samples are put at the nearest category (`fedimb.generation.categories`). Empty: numbers only.
        seed: of the initial weights (given by fedimb).

    Raises:
        ConfigError: rows that are not numbers, or settings out of range.
    """

    sample_batch = 4096

    def __init__(
        self,
        n_classes: int,
        n_domains: int,
        shape: tuple[int, ...],
        *,
        df: float | None = 5.0,
        latent: int = 8,
        width: int = 128,
        depth: int = 2,
        categories: Sequence[Sequence[int]] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(n_classes, n_domains, shape)
        columns = columns_expected("t_vae", shape)
        if df is not None and not 2 < df < math.inf:
            raise ConfigError(f"generator 't_vae': df={df}: give a finite number above 2, or null for a Gaussian VAE")
        if min(latent, width, depth) < 1:
            raise ConfigError(
                f"generator 't_vae': latent={latent}, width={width}, depth={depth}: give at least 1 of each"
            )
        self.df, self.latent = df, latent
        self.categories = check_categories("t_vae", categories, shape[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = _Net(n_classes, n_domains, columns, latent, width, depth)

    def sample(self, y: Tensor, d: Tensor, generator: torch.Generator, progress: Progress | None = None) -> Tensor:
        """See `Generator.sample`; categorical columns hold 0 and 1."""
        return nearest_categories(super().sample(y, d, generator, progress), self.categories)

    def class_rows(self) -> dict[str, int]:
        return super().class_rows() | {f"net.{coder}.class_embedding.weight": self.n_classes for coder in _CODERS}

    def domain_rows(self) -> dict[str, int]:
        return super().domain_rows() | {f"net.{coder}.domain_embedding.weight": self.n_domains for coder in _CODERS}

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """Levels float32 [n] in 0..1, which the loss does not depend on."""
        return torch.rand(n, generator=generator, device=generator.device)

    def _losses(self, z: Tensor, y: Tensor, d: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        mean, log_variance = self.net.encoder(z, y, d).chunk(2, 1)
        columns = z.shape[1]
        noise = self._noise(mean, generator)
        tails = self._tails(len(z), columns, generator)
        latent = mean + (log_variance / 2).exp() * noise * tails
        deviations = self.net.deviations()
        errors = ((z - self.net.decoder(latent, y, d)) / deviations).square().sum(1) + latent.square().sum(1)
        inner = (noise * tails).square().sum(1)  # nu |e|^2 / v, of the encoder's draw
        bound = (
            deviations.log().sum() - log_variance.sum(1) / 2 + log_ratio(errors, inner, columns, self.latent, self.df)
        )
        return bound / columns

    def _draw(self, y: Tensor, d: Tensor, generator: torch.Generator) -> Tensor:
        z = self._noise(torch.empty(len(y), self.latent), generator) * self._tails(len(y), 0, generator)
        noise = self._noise(torch.empty(len(y), *self.shape), generator) * self._tails(len(y), self.latent, generator)
        if self.df is not None:  # the decoder's scale, times sqrt(1 + m / nu), which _tails has divided by
            noise = noise * (1 + z.square().sum(1, keepdim=True) / self.df).sqrt()
        made: Tensor = self.net.decoder(z, y, d) + self.net.deviations() * noise
        return made

    def _tails(self, n: int, more: int, generator: torch.Generator) -> Tensor:
        """sqrt(nu / v), v ~ chi-square(nu + more): [n, 1], what makes normal noise t of nu + more degrees of freedom,
        scaled by sqrt(nu / (nu + more)); 1 for a Gaussian VAE."""
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        if self.df is None:
            return torch.ones(n, 1, device=self.device)
        drawn = np.random.default_rng(seed).chisquare(self.df + more, n)  # torch's cannot be given a generator
        return torch.from_numpy(np.sqrt(self.df / drawn)).to(torch.float32)[:, None].to(self.device)


_CODERS = ("encoder", "decoder")


def log_ratio(outer: Tensor, inner: Tensor, n: int, m: int, df: float | None) -> Tensor:
    """log q(z | x) - log p(x, z) of one draw, of unit scales: with theirs, the negative bound in nats.

    Args:
        outer: [b] |z|^2 plus the squared errors of x, each in the column's deviation.
        inner: [b] |z - mu|^2 in the encoder's deviations.
        n, m: columns and latent dimensions.
        df: nu; None: the Gaussian limit.

    Returns:
        float32 [b].
    """
    if df is None:
        return n / 2 * math.log(2 * math.pi) + (outer - inner) / 2
    log_norm = math.lgamma((df + n) / 2) - math.lgamma(df / 2) - n / 2 * math.log(df * math.pi)
    return (df + n + m) / 2 * (torch.log1p(outer / df) - torch.log1p(inner / df)) - log_norm
