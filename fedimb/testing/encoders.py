"""The contract of an encoder: a frozen map from rows to vectors that does not depend on batch or order."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedimb import registry
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.encoders import embed as embedding
from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import unit_rows
from fedimb.encoders.embed import embed, open_encoder
from fedimb.errors import ConfigError, FedimbError
from fedimb.testing.expectations import Contract, check_yaml, yaml_settings

ROWS = 9
NAMES = ("cat", "dog", "old_car")


def encoder_store(folder: Path, shape: tuple[int, ...] = (3, 32, 32)) -> Store:
    """A store of nine images of random grey levels; labels 0, 1, 2, 0, ..."""
    x = np.random.default_rng(0).integers(0, 256, (ROWS, *shape)).astype(np.uint8)
    y = (np.arange(ROWS) % len(NAMES)).astype(np.int64)
    return Store.build(SourceData(x, y, NAMES, 1 / 255), folder, "made-here")


def check_encoder(name: str, *, shape: tuple[int, ...] = (3, 32, 32), **settings: Any) -> None:
    """Check that an encoder gives finite rows in the requested order for any batch, and matching class vectors or none.

    For an encoder that uses the federation's own model only its declarations are checked: it needs a run.

    Args:
        name: as registered under kind ``encoder``.
        shape: shape of the test images.
        settings: settings of the encoder, instead of those in its YAML, e.g. its file.

    Raises:
        ContractError: with the broken rule, what was expected and what was found.
    """
    contract = Contract("encoder", name)
    check_yaml(contract, "encoder", name)
    kind: Any = registry.get("encoder", name).factory
    with contract.rule("it declares where its knowledge comes from"):
        known = ("none", "external", "oracle-auxiliary")
        contract.expect(kind.provenance in known, f"provenance: one of {', '.join(known)}", kind.provenance)
        contract.expect(isinstance(kind.uses_model, bool), "uses_model: True or False", kind.uses_model)
    if kind.uses_model:
        return
    config = {"name": name, **yaml_settings("encoder", name), **settings}
    with tempfile.TemporaryDirectory(prefix="fedimb-check-") as folder:
        store = encoder_store(Path(folder) / "store", shape)
        _check_rows(contract, config, store)
        cached = embedding.load_or_compute
        embedding.load_or_compute = lambda key, n, make: make()
        try:
            _check_batches(contract, config, store)
        finally:
            embedding.load_or_compute = cached
        _check_class_vectors(contract, config, store)
        with contract.rule("rows outside the store are refused"):
            encoder = _fresh(config, store)
            for wrong in ([-1], [ROWS], [[0]]):
                with contract.refuses(FedimbError, f"from 0 to {ROWS - 1}"):
                    embed(encoder, store, np.array(wrong))


def _fresh(config: Mapping[str, Any], store: Store) -> Encoder:
    embedding._opened.cache_clear()
    return open_encoder(dict(config), store)


def _check_rows(contract: Contract, config: Mapping[str, Any], store: Store) -> None:
    with contract.rule("finite float32 rows in the requested order"):
        encoder = _fresh(config, store)
        every = embed(encoder, store, np.arange(ROWS))
        contract.expect(every.dtype == torch.float32 and every.ndim == 2, "float32 [n, d]", every)
        contract.equal(len(every), ROWS, "rows")
        contract.finite(every, "vectors")
        contract.expect(len(torch.unique(every, dim=0)) == ROWS, "another vector for another image", every)
        asked = np.array([7, 0, 7, 3])
        some = unit_rows(embed(encoder, store, asked))
        contract.expect(torch.allclose(some, unit_rows(every)[asked], atol=1e-6), "rows 7, 0, 7, 3", some)
        none = embed(encoder, store, np.array([], dtype=np.int64))
        contract.equal(tuple(none.shape), (0, every.shape[1]), "of no rows, shape")


def _check_batches(contract: Contract, config: Mapping[str, Any], store: Store) -> None:
    with contract.rule("a row's vector does not depend on the batch"):
        encoder = _fresh(config, store)
        whole = unit_rows(embed(encoder, store, np.arange(ROWS), batch=ROWS))
        for batch in (1, 2, 5):
            parts = unit_rows(embed(encoder, store, np.arange(ROWS), batch=batch))
            contract.expect(torch.allclose(whole, parts, rtol=0, atol=1e-6), f"the same in batches of {batch}", parts)
    with contract.rule("the same rows give the same bits, and the same fingerprint"):
        first = _fresh(config, store)
        torch.rand(3)  # advances the global generator
        second = _fresh(config, store)
        contract.expect(first is not second, "two encoders", "one")
        contract.equal(second.fingerprint(), first.fingerprint(), "fingerprint")
        one, two = (embed(each, store, np.arange(ROWS)) for each in (first, second))
        contract.equal(two, one, "vectors")
    with contract.rule("no global generator is drawn from"), contract.own_randomness():
        encoder = _fresh(config, store)
        embed(encoder, store, np.arange(ROWS))
        encoder.class_vectors(NAMES)


def _check_class_vectors(contract: Contract, config: Mapping[str, Any], store: Store) -> None:
    with contract.rule("class vectors match the embeddings, or there are none"):
        encoder = _fresh(config, store)
        vectors = encoder.class_vectors(NAMES)
        if type(encoder).class_vectors is Encoder.class_vectors:
            contract.equal(vectors, None)
            return
        assert vectors is not None
        width = embed(encoder, store, np.arange(1)).shape[1]
        contract.expect(vectors.dtype == torch.float32, "float32", vectors)
        contract.equal(tuple(vectors.shape), (len(NAMES), width), "shape")
        contract.finite(vectors, "vectors")
        turned = encoder.class_vectors(NAMES[::-1])
        assert turned is not None
        contract.expect(
            torch.allclose(turned, vectors.flip(0), atol=1e-6), "each name with its vector, in any order", turned
        )
        for wrong in ((), ("cat", " "), ("cat", "cat")):
            with contract.refuses(ConfigError, str(config["name"])):
                encoder.class_vectors(wrong)
