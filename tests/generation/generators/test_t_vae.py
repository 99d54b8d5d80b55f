"""The Student-t VAE: its loss where the answer is known, its Gaussian limit, and tails planted and recovered."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from fedimb.errors import ConfigError
from fedimb.generation.categories import nearest_categories
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator
from tests.generation.generator_cases import build, ids, rng


def made(df, columns=4, latent=3, **changes):
    model = build("t_vae", n_classes=1, n_domains=1, shape=(columns,), df=df, latent=latent, width=32, **changes)
    model.set_common_scale()
    model.mark_seen(Examples(torch.zeros(1, columns), ids(0), ids(0)))
    return model.requires_grad_(False)


def rows(n, columns=4):
    return torch.randn(n, columns, generator=rng(5)), torch.zeros(n, dtype=torch.int64)


class Posterior(nn.Module):
    """The encoder of z, x = slope z + sigma e (one of each, jointly t): mean and log S of z given x."""

    def __init__(self, slope, sigma, df):
        super().__init__()
        self.slope, self.variance, self.sigma, self.df = slope, slope**2 + sigma**2, sigma, df

    def forward(self, x, y, d):
        spread = self.sigma**2 / self.variance * (1 + x.square() / (self.df * self.variance))
        return torch.cat([x * self.slope / self.variance, spread.log()], 1)


class Line(nn.Module):
    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, z, y, d):
        return self.slope * z


@pytest.mark.parametrize("df", [2.5, 6.0])
def test_with_the_true_posterior_the_loss_is_the_rows_negative_log_density(df):
    """Of a line the density of x is known: t with nu degrees of freedom, and every draw gives it exactly."""
    model = made(df, columns=1, latent=1)
    sigma = float(model.net.deviations()[0])
    model.net.encoder, model.net.decoder = Posterior(1.5, sigma, df), Line(1.5)
    x = torch.tensor([[-3.0], [0.0], [0.4], [7.0]])
    zeros = torch.zeros(4, dtype=torch.int64)
    density = stats.t.logpdf(x[:, 0].numpy(), df, scale=np.hypot(1.5, sigma))
    for seed in range(3):
        np.testing.assert_allclose(model.losses(x, zeros, zeros, rng(seed)).numpy(), -density, rtol=2e-5)


def test_without_degrees_of_freedom_it_is_a_gaussian_vae():
    """In expectation over the draw: squared errors and the closed-form divergence of two normal distributions."""
    model, (x, y) = made(None), rows(1)
    mean, log_variance = model.net.encoder(x, y, y).chunk(2, 1)
    posterior = Normal(mean, (log_variance / 2).exp())
    draws = mean + (log_variance / 2).exp() * torch.randn(4000, 3, generator=rng(7))
    many = torch.zeros(4000, dtype=torch.int64)
    likelihood = Normal(model.net.decoder(draws, many, many), model.net.deviations()).log_prob(x).sum(1)
    bound = likelihood.mean() - kl_divergence(posterior, Normal(0.0, 1.0)).sum()
    found = model.losses(x.expand(4000, -1), many, many, rng()).mean() * 4
    assert float(found) == pytest.approx(float(-bound), rel=0.02)


def test_many_degrees_of_freedom_are_the_gaussian_vae():
    x, y = rows(6)
    limit = made(None).losses(x, y, y, rng())
    gaps = [float((made(df).losses(x, y, y, rng()) - limit).abs().max()) for df in (1e2, 1e4, 1e6)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0  # as 1 / sqrt(df): the spread of a chi-square about its mean
    assert gaps[2] < 5e-3
    asked = ids(0, 0, 0), ids(0, 0, 0)
    torch.testing.assert_close(made(1e6).sample(*asked, rng()), made(None).sample(*asked, rng()), atol=0.02, rtol=0.02)


def planted(n, df=5, seed=0):
    """Correlated rows of four columns, t with ``df`` degrees of freedom."""
    draw = np.random.default_rng(seed)
    normal = draw.standard_normal((n, 4)) @ (np.eye(4) + 0.5 * np.eye(4, k=1))
    x = 3 * normal * np.sqrt(df / draw.chisquare(df, (n, 1))) + 1
    zeros = torch.zeros(n, dtype=torch.int64)
    return Examples(torch.from_numpy(x).float(), zeros, zeros)


@pytest.mark.slow
def test_planted_tails_are_recovered_and_a_gaussian_vae_loses_them():
    data, zeros = planted(3000), torch.zeros(8000, dtype=torch.int64)
    real, found = stats.kurtosis(data.x.numpy()), {}
    assert real.min() > 3, "a normal distribution has 0"
    for df in (5.0, None):
        model = build("t_vae", n_classes=1, n_domains=1, shape=(4,), df=df, latent=4, width=32, depth=1)
        train_generator(model, data, Training(steps=200, batch=96, lr=5e-3), 0)
        samples = model.sample(zeros, zeros, rng(1))
        np.testing.assert_allclose((samples.std(0) / data.x.std(0)).numpy(), 1.0, atol=0.15)
        found[df] = stats.kurtosis(samples.numpy())
    assert (np.abs(found[None]) < 0.5).all()
    assert (found[5.0] > 2).all()
    assert found[5.0].mean() == pytest.approx(real.mean(), rel=0.4)


def test_settings_and_data_it_cannot_use_are_refused():
    with pytest.raises(ConfigError, match=r"\(columns,\), this data has \(1, 8, 8\): use flow"):
        build("t_vae", shape=(1, 8, 8))
    with pytest.raises(ConfigError, match=r"df=1\.5: give a finite number above 2, or null"):
        build("t_vae", df=1.5)


def test_samples_of_a_table_with_categories_are_of_existing_ones():
    """Columns 1 to 3 are a category, column 3 a mark; what was drawn is put at the nearest, numbers stay."""
    plain, put = (made(5.0, **more) for more in ({}, {"categories": [[1, 3], [3, 4]]}))
    drawn = []
    for model in (plain, put):
        model.low.fill_(-2.0)
        model.high.fill_(2.0)
        drawn.append(model.sample(ids(*[0] * 64), ids(*[0] * 64), rng(3)))
    assert torch.equal(drawn[1], nearest_categories(drawn[0], [(1, 3), (3, 4)]))
    assert torch.equal(drawn[1][:, 0], drawn[0][:, 0])
    assert not torch.equal(drawn[0], drawn[1])
    assert set(drawn[1][:, 1:].unique().tolist()) <= {0.0, 1.0}
    with pytest.raises(ConfigError, match=r"'t_vae'.*is not a span"):
        made(5.0, categories=[[1, 9]])
