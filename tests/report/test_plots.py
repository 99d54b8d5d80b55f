import re
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from fedimb.errors import ConfigError
from fedimb.report.plots import comparison_figure
from fedimb.rundir import partition_picture
from fedimb.rundir.manifest import _draw_partition
from fedimb.rundir.partition_picture import partition_figure

LIMIT = 200_000


def runs(labels, seeds=3):
    rng = np.random.default_rng(0)
    for label in labels:
        for seed in range(seeds):
            metrics = {
                "macro_recall": 0.7 + rng.normal() / 20,
                "minority_recall": 0.5,
                "min_class_recall": 0.1,
            }
            yield {"label": label, "seed": seed, "metrics": metrics, "bytes": 1, "seconds": 1.0}


def drawn_text(path):
    """matplotlib writes each text it draws as outlines into an SVG comment."""
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", path.read_text(), re.S)]


def test_each_partition_of_a_run_is_drawn_once_and_no_other_gets_its_picture(tmp_path, monkeypatch):
    drawn, figure = [], partition_picture.partition_figure

    def seen(counts, *args):
        drawn.append(counts.tolist())
        return figure(counts, *args)

    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(partition_picture, "partition_figure", seen)
    for name, rows in (("a", [[9, 0]]), ("b", [[0, 9]]), ("again", [[9, 0]])):
        federation = SimpleNamespace(counts=np.array(rows), class_names=("x", "y"), minority=(1,))
        _draw_partition(federation, tmp_path / f"{name}.png")
    a, b, again = ((tmp_path / f"{name}.png").read_bytes() for name in ("a", "b", "again"))
    assert drawn == [[[9, 0]], [[0, 9]]]
    assert a == again != b


@pytest.mark.parametrize(("suffix", "labels"), [("png", 30), ("svg", 1), ("svg", 30)])
def test_comparison_is_drawn_and_small(tmp_path, suffix, labels):
    path = tmp_path / "made" / f"c.{suffix}"
    names = [f"scope+fedavgm+uniform+balanced_softmax+v{i}" for i in range(labels)]
    assert comparison_figure(list(runs(names)), path) == path
    assert 3_000 < path.stat().st_size <= LIMIT


def test_comparison_names_labels_values_and_failures(tmp_path):
    rows = [*runs(["fedavg", "my $odd$ one"])]
    rows[-1] |= {"status": "failed", "metrics": {}}
    rows.append({"label": "gone", "seed": 0, "metrics": {}, "bytes": 0, "seconds": 0.0, "status": "diverged"})
    text = "\n".join(drawn_text(comparison_figure(rows, tmp_path / "c.svg")))
    for words in (
        "fedavg",
        "3 seeds",
        "my $odd$ one",
        "2 of 3 seeds finished",
        "no result",
        "0.50",
        "minority recall",
    ):
        assert words in text, words
    assert "one seed" not in text
    alone = comparison_figure(list(runs(["fedavg"], seeds=1)), tmp_path / "one.svg")
    assert "one seed: no interval" in "\n".join(drawn_text(alone))


def test_partition_orders_classes_and_annotates(tmp_path):
    counts = np.array([[0, 41, 2], [1, 59, 0]])
    path = partition_figure(counts, ["rare", "head", "few"], [0], tmp_path / "p.svg")
    text = drawn_text(path)
    first = text.index("head")
    assert text[first : first + 6] == ["head", "100", "few", "2", "rare", "1"]
    assert {"41", "59"} <= set(text)
    before = path.read_bytes()
    assert partition_figure(counts, ["rare", "head", "few"], [0], path).read_bytes() == before


@pytest.mark.parametrize(
    ("clients", "classes", "suffix"), [(20, 10, "png"), (1000, 100, "svg"), (1000, 100, "png"), (1, 1, "svg")]
)
def test_partition_stays_small_at_any_size(tmp_path, clients, classes, suffix):
    counts = np.random.default_rng(0).integers(0, 300, (clients, classes))
    path = partition_figure(counts, [f"class {i}" for i in range(classes)], [0], tmp_path / f"p.{suffix}")
    assert path.stat().st_size <= LIMIT
    if suffix == "svg" and clients > 250:
        assert "client (each row: 4 clients)" in drawn_text(path)


def test_partition_without_a_sample_and_pixels(tmp_path):
    empty = imread(partition_figure(np.zeros((3, 3), int), list("abc"), [], tmp_path / "e.png"))
    full = imread(partition_figure(np.full((3, 3), 50), list("abc"), [], tmp_path / "f.png"))
    assert empty[..., :3].mean() > full[..., :3].mean() + 0.2


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"png or \.svg"):
        comparison_figure(list(runs(["a"])), tmp_path / "c.pdf")
    with pytest.raises(ValueError, match="no runs"):
        comparison_figure([], tmp_path / "c.png")
    with pytest.raises(ValueError, match="shape"):
        partition_figure(np.ones((2, 3), int), ["a", "b"], [], tmp_path / "p.png")
    assert list(tmp_path.iterdir()) == []
