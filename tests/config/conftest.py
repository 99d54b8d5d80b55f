"""Toy parts, so these tests hold whatever parts fedimb itself ships."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from fedimb import registry

TOY_YAML = {
    "model/toynet.yaml": "name: toynet\nwidth: 8\nencoder: null\n",
    "loss/toy_plain.yaml": "name: toy_plain\n",
    "loss/toy_shift.yaml": "name: toy_shift\n",
    "sampler/toyorder.yaml": "name: toyorder\n",
    "aggregator/toymean.yaml": "name: toymean\nterms:\n  - {name: toypull, mu: '${local.lr}'}\n",
    "aggregator/toymedian.yaml": "name: toymedian\n",
    "strategy/toy_a.yaml": "# @package strategy.toy_a\nwarmup: 2\n",
    "strategy/toy_b.yaml": "# @package strategy.toy_b\n{}\n",
    "strategy/toy_c.yaml": "# @package strategy.toy_c\n{}\n",
    "strategy/toy_flat.yaml": "warmup: 2\n",
    "calibration/toy_post.yaml": "# @package calibration.toy_post\ntau: 1.0\n",
}


def _register_toys() -> None:
    @registry.register("model", "toynet")
    def toynet(n_classes: int, input_shape: tuple[int, ...], width: int, encoder: str | None = None) -> None: ...

    @registry.register("loss", "toy_plain")
    class ToyLoss:
        def __init__(self, gamma: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None: ...

    @registry.register("loss", "toy_shift", adjusts_logits=True, needs_prior=True)
    class ToyShift:
        def __init__(self, prior: Any) -> None: ...

    @registry.register("sampler", "toyorder")
    def toyorder() -> None: ...

    @registry.register("aggregator", "toymean", linear=True)
    def toymean() -> None: ...

    @registry.register("aggregator", "toymedian", linear=False)
    def toymedian() -> None: ...

    @registry.register("objective", "toypull")
    def toypull(mu: float) -> None: ...

    @registry.register("calibration", "toy_post", adjusts_logits=True, needs_prior=True)
    def toy_post(prior: Any, minority: Any, tau: float) -> None: ...

    @registry.register("strategy", "toy_a", cycles=True)
    class ToyA:
        def __init__(self, inner: Any, warmup: int, share: float = 0.5) -> None: ...

    @registry.register("strategy", "toy_b", needs_merged=True)
    class ToyB:
        def __init__(self, inner: Any) -> None: ...

    @registry.register("strategy", "toy_c", cycles=True)
    class ToyC:
        def __init__(self, inner: Any) -> None: ...

    @registry.register("client", "toy_a")
    class ToyAClient:
        def __init__(self, warmup: int) -> None: ...

    registry.register("client", "toy_b")(type("ToyBClient", (), {}))
    registry.register("client", "toy_c")(type("ToyCClient", (), {}))


@pytest.fixture(scope="session")
def toy_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the YAML of the toy parts, the same one for all tests: what was composed once is remembered."""
    folder = tmp_path_factory.mktemp("yaml") / "toys"
    for name, text in TOY_YAML.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def toys(toy_yaml: Path) -> Iterator[list[Path]]:
    """Toy parts registered and a folder with their YAML: pass it as ``config_dirs``."""
    with registry.isolated():
        _register_toys()
        yield [toy_yaml]
