"""Writes a case's work for programs without fedimb: ``python export.py FOLDER '<settings as JSON list>'``."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from fedimb.bench.bare import refuse
from fedimb.config.compose import compose
from fedimb.config.parts import build_model
from fedimb.config.validate import validate
from fedimb.data.prepare import prepare
from fedimb.data.views import to_tensors
from fedimb.models.images import as_images
from fedimb.serverapp.client_sampler import ClientSampler

_BLOCK = 2_000_000  # rows read at a time


def export(folder: Path, words: list[str]) -> None:
    """Write rows, partition, cohorts, initial weights and settings.

    Raises:
        ConfigError: the settings are not plain federated averaging, which is all that the peers' programs do.
    """
    config = validate(compose(words))
    refuse(config)
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    sampler = ClientSampler(config.clients, config.seed, federation.train_sizes)
    model = build_model(config, federation.n_classes, federation.input_shape)
    sizes = np.asarray(federation.train_sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.concatenate([np.asarray(federation.train[k]) for k in range(len(sizes))])
    images = config.model["name"] != "mlp"

    def read(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = to_tensors(federation.store, part, federation.scaling)
        return (as_images(x).contiguous() if images else x).numpy(), y.numpy()

    test_x, test_y = read(federation.test)
    folder.mkdir(parents=True, exist_ok=True)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (len(rows), *test_x.shape[1:]))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (len(rows),))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        x[part], y[part] = read(rows[part])
    x.flush()
    y.flush()
    np.save(folder / "starts.npy", starts)
    np.save(folder / "test_x.npy", test_x)
    np.save(folder / "test_y.npy", test_y)
    weights = {f"w:{name}": value.detach().numpy() for name, value in model.named_parameters()}
    with torch.no_grad():
        logits = model(torch.from_numpy(test_x[:8])).numpy()
    np.savez(folder / "initial.npz", inputs=test_x[:8], logits=logits, **weights)
    local = config.local
    facts = {
        "rounds": config.rounds,
        "epochs": local.epochs,
        "batch_size": local.batch_size,
        "optimiser": {"lr": local.lr, "momentum": local.momentum, "weight_decay": local.weight_decay},
        "model": {key: value for key, value in config.model.items() if key not in ("norm", "head")},
        "classes": federation.n_classes,
        "shape": list(test_x.shape[1:]),
        "cohorts": [[int(k) for k in sampler.cohort(r).asked] for r in range(1, config.rounds + 1)],
    }
    if config.model.get("norm", "group") != "group" or config.model.get("head", "linear") != "linear":
        raise ValueError(f"nets.py has no such model: {config.model}")
    (folder / "work.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    export(Path(sys.argv[1]), json.loads(sys.argv[2]))
