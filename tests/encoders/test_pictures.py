import numpy as np
import pytest
import torch
from PIL import Image

from fedimb.encoders.pictures import PROMPT, check_channels, check_prompts, model_folder, pictures, text_vectors
from fedimb.errors import ConfigError, DataError


def test_pictures_are_resized_like_pillow_does_and_normalised():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 40)).astype(np.uint8)
    found = pictures(torch.from_numpy(grey / 255).float()[None], (16, 16), [0.5, 0.25, 0.0], [2.0, 1.0, 0.5])
    wanted = np.asarray(Image.fromarray(grey).resize((16, 16), Image.Resampling.BICUBIC)) / 255
    assert found.shape == (1, 3, 16, 16)
    for channel, (mean, std) in enumerate([(0.5, 2.0), (0.25, 1.0), (0.0, 0.5)]):
        assert np.allclose(found[0, channel] * std + mean, wanted, atol=1.5 / 255)


def test_pictures_of_the_right_size_are_left_and_grey_becomes_three_channels():
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(pictures(x, (4, 4), [0, 0, 0], [1, 1, 1]), x.expand(2, 3, 4, 4))
    assert torch.equal(pictures(x[:, 0], (4, 4), [0, 0, 0], [1, 1, 1]), x.expand(2, 3, 4, 4))


def test_enlarging_stays_within_black_and_white():
    x = (torch.rand(1, 3, 4, 4) > 0.5).float()
    found = pictures(x, (17, 9), [0, 0, 0], [1, 1, 1])
    assert found.shape == (1, 3, 17, 9)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_several_prompts_are_averaged_at_unit_length():
    said = []

    def encode(texts):
        said.append(texts)
        return torch.tensor([[3.0, 0.0], [0.0, 0.5]])[: len(texts)]

    found = text_vectors("e", ("old_car",), ("a {class}", "two {class}s"), encode)
    assert said == [["a old car", "two old cars"]]
    assert torch.allclose(found, torch.tensor([[0.5**0.5, 0.5**0.5]]))


def test_text_that_cannot_be_encoded():
    with pytest.raises(DataError, match=r"encoder 'e', class 'cat': row 0 of 1 has a NaN"):
        text_vectors("e", ("cat",), (PROMPT,), lambda texts: torch.full((1, 2), float("nan")))
    for prompts in ((), ("a photo",), (PROMPT, "{name}")):
        with pytest.raises(ConfigError, match=r"give texts with \{class\}"):
            check_prompts("e", prompts)
    with pytest.raises(ConfigError, match="this data has 4 channels"):
        check_channels("e", 4)


def test_a_models_folder_is_named_when_it_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"expects the model's folder at 'm'.*current folder.*Nothing is downloaded"):
        model_folder("e", "m", "config.json")
    (tmp_path / "m").mkdir()
    monkeypatch.setenv("FEDIMB_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=rf"{tmp_path}/m has no config.json"):
        model_folder("e", "m", "config.json")
    (tmp_path / "m" / "config.json").write_text("{}")
    assert model_folder("e", "m", "config.json") == tmp_path / "m"
