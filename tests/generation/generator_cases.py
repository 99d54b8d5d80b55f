"""Small generators and examples, made here."""

from importlib.resources import files

import numpy as np
import torch
import yaml

from fedimb import registry
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator

SMALL = {
    "flow": {"widths": (8, 8), "steps": 2},
    "ddpm": {"widths": (8, 8), "steps": 2},
    "table_flow": {"width": 16, "depth": 1, "steps": 2},
    "t_vae": {"width": 16, "depth": 1, "latent": 3},
}
TABLES = {"table_flow", "t_vae"}  # those of rows of numbers
NO_OFFLINE = {"lora"}  # needs a pretrained model: see test_lora.py
TRAINABLE = [
    name
    for name in registry.names("generator")
    if name not in NO_OFFLINE and registry.get("generator", name).factory.trainable
]
SHORT = Training(steps=4, batch=6, warmup=2, checkpoint_every=2)


def shape_of(name):
    """A shape the generator makes, with sides that the levels of a network do not divide."""
    return (5,) if name in TABLES else (1, 5, 7)


def settings(name):
    """As its own YAML configures it, smaller where this file knows how."""
    args = yaml.safe_load((files("fedimb.configs") / "generator" / f"{name}.yaml").read_text())
    args.pop("name")
    return args | SMALL.get(name, {})


def build(name, n_classes=3, n_domains=2, shape=None, seed=0, **changes):
    given = {"n_classes": n_classes, "n_domains": n_domains, "shape": shape or shape_of(name), "seed": seed}
    return registry.build("generator", name, given, **(settings(name) | changes))


def examples(shape, counts=(6, 3, 1), n_domains=2, seed=0):
    """Rows in 0..1; class c of them ``counts[c]``, domains in turn."""
    y = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    x = torch.rand(len(y), *shape, generator=torch.Generator().manual_seed(seed))
    return Examples(x, y, torch.arange(len(y)) % n_domains)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def ids(*values):
    return torch.tensor(values, dtype=torch.int64)


def same_bits(a, b):
    """Whether two states hold the same names and bits."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def trained(name, data=None, seed=3, **changes):
    """A generator after a few steps on these examples, or on small ones of its own shape."""
    generator = build(name, **changes)
    train_generator(generator, data or examples(shape_of(name)), SHORT, seed)
    return generator
