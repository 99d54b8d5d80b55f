"""open_clip brings torchvision, which replaces torch here: a stand-in of its four functions checks what is asked."""

import importlib.util
import json
import sys
from types import ModuleType

import pytest
import torch

from fedimb.encoders.open_clip import OpenClip
from fedimb.errors import ConfigError, DataError
from tests.encoders.recipes import COLOUR, NAMES


class Model(torch.nn.Module):
    """Image: mean per channel. Text: lengths of the words."""

    def encode_image(self, pixels):
        assert pixels.shape[1:] == (3, 12, 10)
        return pixels.mean((2, 3)).half()

    def encode_text(self, tokens):
        return tokens.float()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({}))
    return tmp_path


@pytest.fixture
def stand_in(folder, monkeypatch):
    module = ModuleType("open_clip")
    asked = []

    def create_model(name, precision, device, require_pretrained):
        asked.append((name, precision, device, require_pretrained))
        return Model().train()

    module.create_model = create_model
    module.get_tokenizer = lambda name: lambda texts: torch.tensor([[len(t), 1, 2] for t in texts])
    module.get_model_preprocess_cfg = lambda model: {"size": (12, 10), "mean": (0, 0, 0), "std": (1, 1, 0.5)}
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return asked


def test_it_asks_open_clip_for_the_local_folder(folder, stand_in):
    encoder = OpenClip(str(folder), prompts=("{class}",), input_shape=COLOUR)
    assert stand_in == [(f"local-dir:{folder}", "fp32", "cpu", True)]
    x = torch.full((2, *COLOUR), 0.25)
    assert torch.allclose(encoder.encode(x), torch.tensor([0.25, 0.25, 0.5]).expand(2, 3), atol=1e-3)
    assert encoder.encode(x).dtype == torch.float32
    wanted = torch.tensor([[3.0, 1, 2], [3, 1, 2], [7, 1, 2]])
    assert torch.allclose(encoder.class_vectors(NAMES), wanted / wanted.norm(dim=1, keepdim=True))


def test_a_model_that_cannot_be_loaded(folder, stand_in):
    def fail(*args, **kwargs):
        raise RuntimeError("Unknown model\nat length")

    sys.modules["open_clip"].create_model = fail
    with pytest.raises(DataError, match=rf"{folder} cannot be loaded \(Unknown model\)"):
        OpenClip(str(folder), input_shape=COLOUR)


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is not None, reason="open_clip is installed")
def test_without_open_clip_the_remedy_is_said(folder):
    with pytest.raises(ConfigError, match="pip install open_clip_torch, with a torchvision that matches"):
        OpenClip(str(folder), input_shape=COLOUR)


def test_a_folder_of_another_kind(tmp_path):
    with pytest.raises(DataError, match=r"has no open_clip_config\.json"):
        OpenClip(str(tmp_path), input_shape=COLOUR)
