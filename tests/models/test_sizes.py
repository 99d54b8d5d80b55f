"""Every size of every model, encoder and generator: below 1 it is refused in one line, before any work."""

import numpy as np
import pytest

from fedimb import registry
from fedimb.config.validate import GIVEN
from fedimb.errors import FedimbError

SHAPES = ((1, 8, 8), (5,), (2, 16))
PASSED = {
    "n_classes": 3,
    "n_domains": 1,
    "class_names": ("a", "b", "c"),
    "seed": 0,
    "n_rows": 10,
    "labels": np.zeros(10, np.int64),
}


def sizes() -> list[tuple[str, str, str, object]]:
    found: list[tuple[str, str, str, object]] = []
    for kind in ("model", "encoder", "generator"):
        for name in registry.names(kind):
            for key, parameter in registry.parameters(kind, name).items():
                annotation = str(parameter.annotation)
                if key in (*GIVEN[kind], "seed") or "int" not in annotation:
                    continue
                several = "list" in annotation or "tuple" in annotation
                found += [(kind, name, key, bad) for bad in (([-4], [0]) if several else (-4, 0))]
    return found


@pytest.mark.parametrize(("kind", "name", "key", "bad"), sizes())
def test_a_size_below_one_is_refused(kind, name, key, bad):
    for shape in SHAPES:
        passed = {k: PASSED.get(k, shape) for k in GIVEN[kind]}
        with pytest.raises(FedimbError) as caught:
            registry.build(kind, name, passed, **{key: bad})
        assert "\n" not in str(caught.value)


def test_the_widths_of_the_mlp_are_named():
    with pytest.raises(FedimbError, match=r"model 'mlp': hidden=\[8, -4\]: give widths of at least 1"):
        registry.build("model", "mlp", {"n_classes": 2, "input_shape": (5,)}, hidden=[8, -4])
