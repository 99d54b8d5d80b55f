"""Normalisation by channel: numbers given, or pooled over the clients' images, the same as over all of them at once."""

import json

import numpy as np
import pytest
import torch
from small_runs import config, launch_in, weights_sha

import fedimb
from fedimb.config.load import config_sha
from fedimb.config.parts import build_model, with_pooled
from fedimb.data.prepare import prepare
from fedimb.data.scaling import channel_sums
from fedimb.errors import ConfigError
from fedimb.models.base import load_into
from fedimb.models.stacking import dense_layers
from fedimb.privacy.updates import check_model
from fedimb.schema import PrivacyConfig
from fedimb.training.stacked import why_model_not_stackable

GIVEN = "data.normalize={mean: [0.3], deviation: [0.4]}"


def test_sums_of_pixels_are_whole_and_add_up_over_clients():
    x = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)
    parts = [np.arange(7), np.arange(7, 50)]
    together = sum(channel_sums(x, rows, (3, 4, 5)) for rows in parts)
    assert (together == channel_sums(x, np.arange(50), (3, 4, 5))).all()
    wide = x.astype(np.int64).transpose(1, 0, 2, 3).reshape(3, -1)
    assert (together == [[50 * 20] * 3, wide.sum(1), (wide**2).sum(1)]).all()
    grey = np.random.default_rng(0).standard_normal((9, 4, 5)).astype(np.float32)
    assert channel_sums(grey, np.arange(9), (4, 5)) == pytest.approx(
        np.array([[180.0], [grey.sum(dtype=float)], [(grey.astype(float) ** 2).sum()]])
    )


def test_pooled_numbers_are_those_of_all_training_images_and_stay_out_of_the_hash():
    cfg = config("data.normalize=pooled")
    federation = prepare(cfg.data, cfg.partition, cfg.clients.count, cfg.seed)
    found = with_pooled(cfg, federation)
    images = federation.store.x[np.concatenate(federation.train)] * np.float64(federation.store.scale)
    assert found.data["normalize"]["mean"] == pytest.approx([images.mean()], rel=1e-6)
    assert found.data["normalize"]["deviation"] == pytest.approx([images.std()], rel=1e-6)
    assert config_sha(found) == config_sha(cfg) != config_sha(config())
    assert config_sha(config(GIVEN)) not in (config_sha(cfg), config_sha(config()))
    with pytest.raises(ConfigError, match="elsewhere give the numbers"):
        build_model(cfg, 10, (8, 8))


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
def test_a_normalised_model_is_its_own_on_normalised_images(model):
    words = (f"model={model}",)
    plain, ours = (build_model(config(*words, *more), 10, (8, 8)) for more in ((), (GIVEN,)))
    x = torch.rand(5, 8, 8)
    assert torch.equal(ours.eval()(x), plain.eval()((x - 0.3) / 0.4))
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert dense_layers(ours) is None  # the manual pass does not normalise
    assert why_model_not_stackable(ours) is None
    check_model(PrivacyConfig(clip=1.0, noise=1.0), ours)  # its numbers are not sent, so no noise is lacking


def test_the_numbers_are_stored_with_the_model_and_used_when_it_is_loaded(tmp_path):
    pooled = launch_in(tmp_path / "a", "engine=inline", "data.normalize=pooled", "rounds=1")
    numbers = json.loads((pooled.folder / "config.json").read_text())["data"]["normalize"]
    given = f"data.normalize={{mean: {numbers['mean']}, deviation: {numbers['deviation']}}}"
    same = launch_in(tmp_path / "b", "engine=inline", given, "rounds=1")
    plain = launch_in(tmp_path / "c", "engine=inline", "rounds=1")
    assert weights_sha(pooled) == weights_sha(same) != weights_sha(plain)
    loaded, x = fedimb.load_model(pooled.folder), torch.rand(4, 8, 8)
    assert torch.equal(loaded.classifier.channel_mean.flatten(), torch.tensor(numbers["mean"]))
    bare = build_model(config(), 10, (8, 8)).eval()
    load_into(bare, dict(loaded.classifier.named_parameters()))
    assert torch.equal(loaded.classifier(x), bare((x - loaded.classifier.channel_mean) / numbers["deviation"][0]))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.normalize=yes please", "give {mean: "),
        ("data.normalize={mean: [0.5]}", "give {mean: "),
        ("data.normalize={mean: [0.5], deviation: [0]}", "deviations above 0"),
        ("data.normalize={mean: [0.5, 0.5], deviation: [1]}", "a number per channel"),
    ],
)
def test_other_values_are_refused(word, message):
    with pytest.raises(ConfigError, match=message):
        config(word)


def test_channels_and_tables_are_checked_against_the_data():
    three = config("data.normalize={mean: [0.5, 0.5, 0.5], deviation: [1, 1, 1]}")
    with pytest.raises(ConfigError, match="3 means, these images have 1 channels"):
        build_model(three, 10, (8, 8))
    with pytest.raises(ConfigError, match="for images, these rows have shape"):
        build_model(config(GIVEN, "model=logistic"), 10, (13,))
