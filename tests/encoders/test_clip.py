import importlib
import json
import socket
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedimb.encoders import clip
from fedimb.encoders.clip import Clip
from fedimb.encoders.pictures import CLIP_MEAN, CLIP_STD, pictures
from fedimb.errors import ConfigError, DataError
from tests.encoders.recipes import COLOUR, NAMES, clip_folder, has_transformers


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@has_transformers
def test_vectors_are_the_models_own(tmp_path, no_network):
    from transformers import CLIPModel

    folder = clip_folder(tmp_path)
    encoder, x = Clip(folder, input_shape=COLOUR), torch.rand(3, *COLOUR)
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        pixels = pictures(x, (16, 16), CLIP_MEAN, CLIP_STD)
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        assert torch.allclose(encoder.encode(x), model.visual_projection(pooled), atol=1e-6)
    assert encoder.encode(x).shape == (3, 12)
    assert encoder.encode(x[:, :1]).shape == (3, 12)


@has_transformers
def test_prompts_and_names_change_class_vectors(tmp_path, no_network):
    folder = clip_folder(tmp_path)
    plain = Clip(folder, input_shape=COLOUR).class_vectors(NAMES)
    other = Clip(folder, prompts=("{class} seen from far",), input_shape=COLOUR).class_vectors(NAMES)
    assert plain.shape == (3, 12)
    assert torch.allclose(plain.norm(dim=1), torch.ones(3))
    assert (plain - other).abs().max() > 1e-3
    assert (plain[0] - plain[1]).abs().max() > 1e-3


@has_transformers
def test_the_folders_own_mean_and_deviation_are_used(tmp_path):
    folder = clip_folder(tmp_path)
    before = Clip(folder, input_shape=COLOUR)
    facts = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(facts))
    after, x = Clip(folder, input_shape=COLOUR), torch.rand(1, *COLOUR)
    assert (before.encode(x) - after.encode(x)).abs().max() > 1e-4
    assert before.fingerprint() != after.fingerprint()


@has_transformers
def test_weights_that_lack_a_tensor_are_refused_not_made_up(tmp_path, no_network):
    weights = tmp_path / "clip" / "model.safetensors"
    clip_folder(tmp_path)
    tensors = load_file(weights)
    del tensors["visual_projection.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"its weights lack 1 tensors, first visual_projection\.weight"):
        Clip(str(tmp_path / "clip"), input_shape=COLOUR)


@has_transformers
def test_a_folder_that_is_not_whole_is_refused_at_once(tmp_path, no_network):
    clip_folder(tmp_path)
    started = time.monotonic()
    Clip(str(tmp_path / "clip"), input_shape=COLOUR)
    whole, started = time.monotonic() - started, time.monotonic()
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"cannot be loaded.*copy the complete folder"):
        Clip(str(tmp_path / "clip"), input_shape=COLOUR)
    assert (time.monotonic() - started) / whole < 5  # no search for it elsewhere


def test_without_transformers_the_remedy_is_said(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    real = importlib.import_module

    def missing(name, *args):
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match="pip install transformers"):
        Clip(str(tmp_path), input_shape=COLOUR)


def test_both_kinds_of_answer_are_read():
    tensor = torch.ones(2, 3)
    assert clip._vectors(tensor) is tensor
    assert torch.equal(clip._vectors(SimpleNamespace(pooler_output=tensor.double())), tensor)
