"""The studies of starved classes and of curves: what the arms add, what is compared, and what a stopped run lacks."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "experiments" / "generation"


@pytest.fixture(scope="module")
def starved():
    yield from loaded("starved")


@pytest.fixture(scope="module")
def curves(starved):
    yield from loaded("curves")


def loaded(name: str):
    """A script, under its own name as the other one imports it, as long as a test uses it."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def pool():
    """Ten classes of 360 images, each brighter than the one before."""
    y = torch.arange(10).repeat_interleave(360)
    noise = torch.rand(len(y), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return (y[:, None, None, None] / 10 + noise / 10), y


def test_an_image_becomes_the_means_of_its_pixels(starved):
    x = np.zeros((1, 28, 28), np.uint8)
    x[0, 2:6, 6:10] = 255  # with the margin of two: rows 4 to 7, columns 8 to 11
    small = starved.shrunk(x)
    assert small.shape == (1, 1, 8, 8)
    assert small[0, 0, 1, 2] == 1
    assert small.sum() == 1


def test_all_arms_of_a_cell_have_the_same_rows_and_more_rows_hold_fewer(starved, pool):
    ten, fifty = starved.task_of(pool, 10, 3), starved.task_of(pool, 50, 3)
    assert ten.starved == fifty.starved
    counts = torch.bincount(ten.y)
    assert sorted(counts.tolist()) == [10] * 4 + [200] * 6
    assert (counts + ten.wanted).tolist() == [200] * 10
    rows = [{row.numpy().tobytes() for row in task.x} for task in (ten, fifty)]
    assert rows[0] < rows[1]
    assert starved.task_of(pool, 10, 4).starved != ten.starved


@pytest.mark.parametrize("arm", ["none", "la_post", "smote", "copies", "t_vae"])
def test_an_arm_fills_the_starved_classes_and_no_others(starved, pool, arm, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path))
    task = starved.task_of(pool, 20, 0)
    x, y = starved.added(arm, task, 0, {"t_vae": 2})
    if arm in ("none", "la_post"):
        assert len(x) == len(y) == 0
        return
    assert x.shape == (720, 1, 8, 8)
    assert torch.equal(torch.bincount(y, minlength=10), task.wanted)
    real = {row.numpy().tobytes() for row in task.x}
    assert all(row.numpy().tobytes() in real for row in x) == (arm == "copies")


def test_a_shift_of_the_logits_finds_more_of_the_starved_classes(starved, pool):
    task = starved.task_of(pool, 10, 0)
    blurred = task.x + 0.6 * torch.rand(task.x.shape, generator=torch.Generator().manual_seed(1))
    test = (pool[0] + 0.6 * torch.rand(pool[0].shape, generator=torch.Generator().manual_seed(2)), pool[1])
    plain, shifted = (starved.recalls(arm, blurred, task.y, test)[list(task.starved)] for arm in ("none", "la_post"))
    assert shifted.mean() > plain.mean()


def planted(starved):
    """Lines in which every arm finds .1 more than none at seed 0 and .3 more at seed 1, flow twice that."""
    lines = []
    for n, arm, seed in starved.cells():
        if seed > 1:
            continue
        gain = {"none": 0.0, "flow": 2.0}.get(arm, 1.0) * (0.1 + 0.2 * seed)
        score = {"macro_recall": 0.4 + gain, "starved_recall": 0.2, "bias_gap": 0.3 - gain, "copied": 0.0, "cpu_s": 1.0}
        lines.append({"n": n, "arm": arm, "seed": seed} | score)
    return [{key: str(value) for key, value in line.items()} for line in lines]


def test_differences_are_paired_and_registered_ones_have_wider_intervals(starved):
    lines = planted(starved)
    found = {(line["n"], line["arm"]): line for line in starved.summary(lines)}
    assert len(found) == 28
    flow, smote = found[10, "flow"], found[10, "smote"]
    assert flow["macro_recall_less_none"] == pytest.approx(0.4)
    assert flow["macro_recall_less_la_post"] == pytest.approx(0.2)
    assert flow["bias_gap_less_none"] == pytest.approx(-0.4)
    # gains of .2 and .6; none has no spread: pooled deviation sqrt(.08 / 2)
    assert flow["d_macro_recall_none"] == pytest.approx(0.4 / 0.2)
    half = smote["macro_recall_less_none"] - smote["macro_recall_less_none_low"]
    assert half == pytest.approx(12.706 * 0.1, rel=1e-3), "of two seeds, 95 %"
    registered = flow["macro_recall_less_la_post"] - flow["macro_recall_less_la_post_low"]
    assert registered > 10 * half, "95 % over 12 contrasts"


def test_a_stopped_run_goes_on_where_it_was(starved):
    every = list(starved.cells())
    assert len(every) == 4 * 7 * 5
    assert starved.missing(planted(starved)) == [cell for cell in every if cell[2] > 1]


def test_curves_are_of_unequal_classes_and_rows_that_were_held_out(curves, pool):
    learned, held_out = curves.unequal(pool, 0)
    sizes = sorted(torch.bincount(learned.y, minlength=10).tolist())
    assert (sizes[0], sizes[-1]) == (10, 300)
    assert torch.bincount(held_out.y).tolist() == [50] * 10
    sides = [{row.numpy().tobytes() for row in side.x} for side in (learned, held_out)]
    assert not sides[0] & sides[1]


@pytest.mark.slow
def test_a_training_gives_a_line_a_step_and_class(curves, pool):
    plan = curves.PLAN | {"steps": 4, "every": 2, "samples": 2}
    lines, made = curves.run((0, "class"), pool, plan)
    assert [line["step"] for line in lines] == [2] * 10 + [4] * 10
    assert all(np.isfinite([line["loss"], line["loss_held_out"], line["variance"]]).all() for line in lines)
    assert [line["label"] for line in made] == list(range(10))
