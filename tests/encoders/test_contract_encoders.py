"""What every registered encoder must keep to. One added later is tested unasked, by its own YAML."""

import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml

from fedimb import registry
from fedimb.encoders import embed as embedding
from fedimb.encoders.embed import GIVEN, embed, open_encoder
from fedimb.errors import ConfigError, FedimbError
from fedimb.testing import check_encoder
from tests.encoders.recipes import clip_folder, cnn_file, has_lite0, has_transformers, precomputed_file

N = 9
MAKES = {  # what their `path` names
    "precomputed": precomputed_file,
    "precomputed_text": precomputed_file,
    "disjoint_cnn": cnn_file,
    "clip": clip_folder,
}
NO_OFFLINE = {"open_clip"}  # needs a package that replaces torch: see test_open_clip.py
MARKS = {"clip": has_transformers, "lite0": has_lite0}
BUILT = [
    pytest.param(name, marks=MARKS.get(name, ()))
    for name in registry.names("encoder")
    if name not in NO_OFFLINE and not registry.get("encoder", name).factory.uses_model
]
encoders = pytest.mark.parametrize("name", BUILT)


def settings(name, folder):
    """An encoder as its own YAML configures it, with the file it needs."""
    args = yaml.safe_load((files("fedimb.configs") / "encoder" / f"{name}.yaml").read_text())
    return args | ({"path": MAKES[name](folder)} if name in MAKES else {})


def fresh(config, store):
    embedding._opened.cache_clear()
    return open_encoder(config, store)


@pytest.mark.parametrize("name", registry.names("encoder"))
def test_its_yaml_names_it_and_fits_its_arguments(name):
    args = yaml.safe_load((files("fedimb.configs") / "encoder" / f"{name}.yaml").read_text())
    assert args.pop("name") == name
    assert registry.check_args("encoder", name, args, given=GIVEN).keys() == args.keys()


@encoders
def test_the_contract(name, tmp_path):
    check_encoder(name, **({"path": MAKES[name](tmp_path)} if name in MAKES else {}))


def test_the_contract_of_one_that_uses_the_federations_model():
    check_encoder("global_features")


@pytest.mark.parametrize("name", sorted(MAKES) + sorted(NO_OFFLINE))
def test_a_missing_model_fails_at_once_and_names_the_place(name, tmp_path, store):
    with pytest.raises(FedimbError, match=str(tmp_path / "nowhere")):
        open_encoder({"name": name, "path": str(tmp_path / "nowhere")}, store)


@pytest.mark.parametrize("name", ["random_conv", "clip", "open_clip", "disjoint_cnn"])
def test_tables_are_no_images(name, make_store):
    table = make_store("table", shape=(6,), n=5)
    args = {} if name == "random_conv" else {"path": "nowhere"}
    with pytest.raises(ConfigError, match=rf"encoder '{name}' reads images.*this data has \(6,\); for tables use"):
        open_encoder({"name": name, **args}, table)


@pytest.mark.slow
def test_another_process_gives_the_same_bits(tmp_path, store, warm):
    configs = [settings(name, tmp_path) for name in ("identity", "random_conv", "pca", "disjoint_cnn", "precomputed")]
    code = (
        "import sys, json, hashlib, torch, numpy as np\n"
        "from pathlib import Path\n"
        "from fedimb.data.store import Store\n"
        "from fedimb.encoders.embed import embed, open_encoder\n"
        "torch.set_num_threads(1)\n"
        f"store = Store.open(Path({str(store.path)!r}))\n"
        f"for config in json.loads({json.dumps(configs)!r}):\n"
        "    values = embed(open_encoder(config, store), store, np.arange(9)).numpy().tobytes()\n"
        "    print(hashlib.sha256(values).hexdigest())\n"
    )
    runs = []
    for cache in ("one", "two"):
        done = warm(tmp_path, f"import os; os.environ['FEDIMB_CACHE_DIR'] = {str(tmp_path / cache)!r}\n{code}")
        assert done.returncode == 0, done.stderr
        runs.append(done.stdout.split())
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == len(configs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = [embed(fresh(config, store), store, np.arange(9)) for config in configs]
    finally:
        torch.set_num_threads(threads)
    assert runs[0] == [hashlib.sha256(values.numpy().tobytes()).hexdigest() for values in here]
