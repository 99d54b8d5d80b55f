"""The papers' protocols in experiments/ are configurations that validate."""

from pathlib import Path

import pytest

from fedimb.config.load import from_json
from fedimb.config.parts import learning_rate
from fedimb.study.cells import first_config, plan
from fedimb.study.design import read_study

ROOT = Path(__file__).parents[2] / "experiments"
FILES = sorted(
    [*(ROOT / "literature").glob("*.yaml"), *(ROOT / "fairfal").glob("paper_*.yaml"), ROOT / "scope/full_scale.yaml"]
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_first_row_of_a_protocol(path):
    study = read_study(path)
    setting = next(iter(study.setting_words))
    config = first_config(study, setting, ())
    assert config.study == study.name


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_of_a_protocol(path):
    study = read_study(path).model_copy(update={"seeds": 1})
    cells, tasks = plan(study)
    assert {cell.setting for cell in cells} == set(study.setting_words)
    assert all(from_json(task.config).rounds >= 50 for task in tasks)


def test_what_the_sources_say_of_the_creff_and_fairfal_protocols():
    creff = first_config(read_study(ROOT / "literature/creff_cifar10.yaml"), "IF 100", ())
    assert (creff.clients.count, creff.clients.participation, creff.rounds) == (20, 0.4, 200)
    assert (creff.local.epochs, creff.local.batch_size, creff.local.lr, creff.local.momentum) == (10, 32, 0.1, 0)
    fairfal = first_config(read_study(ROOT / "fairfal/paper_cifar10.yaml"), "skewed", ())
    assert [learning_rate(fairfal, r) for r in (75, 76, 100, 101)] == pytest.approx([0.01, 0.001, 0.001, 0.01])
