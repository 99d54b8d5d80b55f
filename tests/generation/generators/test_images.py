"""Image generators: every side, where DDPM's samplers start; and, slowly, made digits are good enough to learn from."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from beside import measured

from fedimb.data.sources.digits import Digits
from fedimb.errors import ConfigError
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator
from fedimb.generation.unet import ConditionalUNet, default_widths
from tests.generation.generator_cases import build, examples, ids, rng

images = pytest.mark.parametrize("name", ["flow", "ddpm"])


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 28, 28), (1, 29, 31), (3, 1, 2), (1, 33, 7)], ids=str)
def test_every_side_is_padded_to_what_the_levels_need_and_cut_again(shape):
    net = ConditionalUNet(2, 1, shape, (8, 8, 8), False, 0, "flow")
    z = torch.randn(2, *shape, generator=rng())
    with torch.no_grad():
        said = net(z, torch.tensor([10.0, 900.0]), ids(0, 2), ids(0, 1))
    assert said.shape == z.shape
    assert torch.isfinite(said).all()


def test_padding_changes_nothing_where_none_is_needed():
    """Against the network that diffusers builds, asked directly."""
    net = ConditionalUNet(2, 1, (1, 8, 8), (8, 8), True, 0, "flow")
    z, time_, y, d = (
        torch.randn(3, 1, 8, 8, generator=rng()),
        torch.tensor([1.0, 500.0, 999.0]),
        ids(0, 1, 2),
        ids(0, 1, 0),
    )
    with torch.no_grad():
        told = net.class_embedding.weight[y] + net.domain_embedding.weight[d]
        assert torch.equal(net(z, time_, y, d), net.unet(z, time_, class_labels=told).sample)
    assert any("attention" in name for name, _ in net.named_parameters())


def test_widths_follow_the_image_and_wrong_ones_are_refused():
    assert default_widths(8, 8) == default_widths(5, 16) == (16, 32)
    assert default_widths(28, 28) == (16, 32, 32)
    assert default_widths(32, 64) == (32, 64, 64)
    assert build("flow", shape=(1, 28, 28), widths=None).net.unet.config.block_out_channels == (16, 32, 32)
    for wrong in ((12,), (8, 0), (4,)):
        with pytest.raises(ConfigError, match=r"multiples of 8"):
            build("flow", widths=wrong)
    with pytest.raises(ConfigError, match=r"\(6,\); for tables and embeddings use table_flow"):
        build("flow", shape=(6,))


def test_no_package_of_diffusion_is_loaded_before_a_generator_is_built():
    code = (
        "import sys, fedimb.generation.training, fedimb.registry as r; r.names('generator')\n"
        "print([name for name in ('diffusers', 'transformers', 'peft', 'PIL') if name in sys.modules])"
    )
    # an interpreter of its own: what a fork starts with is loaded already
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_without_diffusers_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"generator 'flow' needs the Python package diffusers.*fedimb\[generate\]"):
        build("flow")


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_a_perfect_network_leads_every_sampler_back_to_the_image(sampler):
    """The noise is known: z = sqrt(a) x + sqrt(1 - a) e."""
    model = build("ddpm", shape=(1, 4, 4), sampler=sampler, steps=10)
    data = examples((1, 4, 4))
    model.fit_scale(data)
    model.mark_seen(data)
    point = torch.rand(1, 4, 4, generator=rng(1)) * 1.6 - 0.8

    class Known(torch.nn.Module):
        def forward(self, z, time, y, d):
            a = model.signal[time.long()].view(-1, 1, 1, 1)
            return (z - a.sqrt() * point) / (1 - a).sqrt()

    model.net = Known()
    z = model._draw(ids(0, 1), ids(0, 0), rng())
    assert (z - point).abs().max() < 0.05
    losses = model.losses_at((point * model.spread + model.centre)[None], ids(0), ids(0), 0.6, rng())
    assert losses.item() < 1e-6


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
@pytest.mark.parametrize("steps", [5, 20, 50])
def test_no_sampler_starts_where_the_signal_is_lost(sampler, steps):
    """At t = 999 its share is 2.4e-9: one error of the network there is multiplied by 20,000."""
    model = build("ddpm", sampler=sampler, steps=steps)
    scheduler = model._scheduler()
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    assert model.signal[scheduler.timesteps[0]] > 5e-4


def test_ddpm_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"sampler='dmp'\. Did you mean 'dpm'"):
        build("ddpm", sampler="dmp")
    with pytest.raises(ConfigError, match="at most 1000"):
        build("ddpm", steps=1001)


def digits(channels):
    """30 images of each class to train on, 50 to test; as colour, the digit in a class-free tint."""
    source = Digits().load()
    x = torch.from_numpy(source.x.astype(np.float32)) / 16
    tint = torch.tensor([1.0, 0.7, 0.4]).view(3, 1, 1)
    x, y = (x * tint if channels == 3 else x), torch.from_numpy(source.y)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = ([], [])
    for c in range(10):
        rows = order[source.y[order] == c]
        test += list(rows[:50])
        train += list(rows[50:80])
    return Examples(x[train], y[train], torch.zeros(300, dtype=torch.int64)), x[test], y[test]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels", "least"), [("flow", 1, 0.85), ("flow", 3, 0.85), ("ddpm", 1, 0.8)])
def test_a_classifier_trained_on_300_made_digits_reads_real_ones(name, channels, least):
    """Settings as shipped; figures of a run are in docs/generators.md."""
    from sklearn.linear_model import LogisticRegression

    data, x_test, y_test = digits(channels)
    model = build(
        name, n_classes=10, n_domains=1, shape=(channels, 8, 8), widths=None, steps=10 if name == "flow" else 20
    )
    with measured() as units:
        train_generator(model, data, Training(steps=500), 0)
        y = torch.arange(10).repeat_interleave(30)
        made = model.sample(y, torch.zeros_like(y), rng(1))
    assert float(units) < 1000
    reader = LogisticRegression(max_iter=2000).fit(made.flatten(1).numpy(), y.numpy())
    assert reader.score(x_test.flatten(1).numpy(), y_test.numpy()) >= least
