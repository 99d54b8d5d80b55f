"""LoRA on a Stable Diffusion of random weights, tiny and real in every part."""

import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError, DataError
from fedimb.generation.averaging import average
from fedimb.generation.training import Training, train_generator
from fedimb.registry import build
from tests.generation.generator_cases import examples, ids, rng, same_bits

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("peft", "transformers", "diffusers")),
    reason="peft, transformers or diffusers is not installed",
)
SHAPE, NAMES = (1, 6, 8), ("mild", "moderate_case", "severe")
SHORT = Training(steps=3, batch=2, warmup=1, lr=0.05, checkpoint_every=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as StableDiffusionPipeline.save_pretrained writes it, 16 x 16 pixels."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel

    path = tmp_path_factory.mktemp("stable-diffusion")
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(tokens) - 2, len(tokens) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=12,
            attention_head_dim=4,
        ).save_pretrained(path / "unet")
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
        ).save_pretrained(path / "vae")
        config = CLIPTextConfig(
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=len(tokens),
            max_position_embeddings=48,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
        CLIPTextModel(config).save_pretrained(path / "text_encoder")
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1).save_pretrained(path / "scheduler")
    (path / "tokenizer").mkdir()
    (path / "tokenizer" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return path


def lora(folder, shape=SHAPE, names=NAMES, seed=0, **changes):
    given = {"n_classes": 3, "n_domains": 2, "shape": shape, "class_names": names, "seed": seed}
    return build("generator", "lora", given, path=str(folder), **({"rank": 2, "steps": 2} | changes))


@pytest.mark.slow  # importing peft and transformers
@needs_packages
def test_only_b_is_trained_and_the_state_is_small(folder):
    model = lora(folder)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    adapters = {key for key in fresh if "lora_" in key}
    assert adapters
    assert {key for key in fresh if key not in adapters} == {k for k in fresh if "." not in k}, "no frozen weights"
    assert all((fresh[key] == 0).all() for key in adapters if "lora_B" in key)
    base = {key: value.clone() for key, value in model._base.unet.state_dict().items() if "lora_" not in key}
    loss = train_generator(model, examples(SHAPE), SHORT, 0)
    assert np.isfinite(loss)
    for key in adapters:
        assert torch.equal(model.state_dict()[key], fresh[key]) == ("lora_A" in key), key
    assert all(torch.equal(value, model._base.unet.state_dict()[key]) for key, value in base.items())


@pytest.mark.slow  # importing peft and transformers
@needs_packages
def test_it_keeps_the_contract_of_generators(folder, tmp_path):
    before, data, file = torch.get_rng_state(), examples(SHAPE), tmp_path / "g.safetensors"
    model, again, killed, loaded = (lora(folder) for _ in range(4))
    train_generator(model, data, SHORT, 0)

    def kill(n):
        if file.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_generator(killed, data, SHORT, 0, checkpoint=file, progress=kill)
    train_generator(again, data, SHORT, 0, checkpoint=file)
    assert same_bits(model.state_dict(), again.state_dict())
    loaded.load_state_dict(model.state_dict())
    asked = ids(0, 2, 1), ids(0, 1, 1)
    made = model.sample(*asked, rng())
    assert made.shape == (3, *SHAPE)
    assert torch.equal(made, loaded.sample(*asked, rng()))
    assert made.min() >= data.x.min()
    assert made.max() <= data.x.max()
    assert not torch.equal(model.sample(ids(0), ids(0), rng()), model.sample(ids(1), ids(0), rng()))
    with torch.no_grad():
        whole = model.losses_at(data.x, data.y, data.d, 0.5, rng())
    assert whole.shape == (10,)
    assert torch.isfinite(whole).all()
    assert torch.equal(before, torch.get_rng_state())
    absent = lora(folder)
    train_generator(absent, examples(SHAPE, (2, 2, 0)), SHORT, 0)
    with pytest.raises(DataError, match="trained on none"):
        absent.sample(ids(2), ids(0), rng())


@pytest.mark.slow  # importing peft and transformers
@needs_packages
def test_averaged_adapters_are_the_average_of_the_weights_they_add(folder):
    models = [lora(folder) for _ in range(2)]
    for seed, model in enumerate(models):
        train_generator(model, examples(SHAPE, seed=seed), SHORT, seed)
    states = [{key: value.numpy() for key, value in model.state_dict().items()} for model in models]
    counts = ([[5, 3, 2], [10, 5, 5]], [[5, 5], [10, 10]])
    merged = average(states, *counts, models[0].class_rows(), models[0].domain_rows())
    for key in (k for k in merged if "lora_A" in k):
        b = key.replace("lora_A", "lora_B")
        added = [state[b] @ state[key] for state in states]
        assert np.allclose(merged[b] @ merged[key], (added[0] + 2 * added[1]) / 3, atol=1e-6)


@pytest.mark.slow  # importing peft and transformers
@needs_packages
def test_words(folder):
    model = lora(folder, prompt="a scan of {class}", domain=" by scanner {domain}")
    assert model._words(1, 0) == "a scan of moderate case by scanner 0"
    assert model._words(1, 2) == "a scan of moderate case"
    assert model._words(3, 0) == ""


@pytest.mark.slow  # importing peft and transformers
@needs_packages
def test_a_folder_that_is_not_whole_is_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"expects a Stable Diffusion folder at 'nowhere'.*Nothing is downloaded"):
        lora("nowhere")
    with pytest.raises(DataError, match="lacks unet, vae, text_encoder, tokenizer, scheduler"):
        lora(tmp_path)
    part = tmp_path / "part"
    shutil.copytree(folder, part)
    from safetensors.torch import load_file, save_file

    weights = part / "unet" / "diffusion_pytorch_model.safetensors"
    kept = load_file(weights)
    kept.pop("conv_in.weight")
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"cannot be read as Stable Diffusion.*conv_in\.weight"):
        lora(part)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"names": None}, "needs their names"),
        ({"names": ("a",)}, "needs their names"),
        ({"prompt": "a photo"}, r"prompt with \{class\}"),
        ({"rank": 0}, "rank=0"),
        ({"size": 12}, "size=12"),
        ({"shape": (2, 6, 8)}, "2 channels"),
        ({"shape": (6,)}, "makes images"),
        ({"steps": 0}, "steps=0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_before_any_model_is_read(changes, says):
    with pytest.raises(ConfigError, match=says):
        lora("nowhere", **changes)


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"generator 'lora' needs the Python package transformers.*peft transformers"):
        lora("nowhere")
