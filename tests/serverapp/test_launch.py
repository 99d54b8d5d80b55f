"""What a run refuses before there is a run folder."""

import pytest
from small_runs import config

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.serverapp.launch import launch

TWO_CLASSES = (
    *("data=synthetic_table", "data.source.rows=300", "data.source.features=6", "data.source.classes=2"),
    *("data.imbalance_factor=3", "data.n_max=null", "clients.count=3", "rounds=1", "model=mlp"),
)
NEEDS = {"fedgrab": ("loss=bce", "aggregator.tail=2"), "balancefl": ("loss=batch_restricted_ce",)}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("loss=focal", "loss.gamma=-1"), r"^loss 'focal': gamma=-1\.0: give a finite number of at least 0$"),
        (
            ("aggregator=fedprox", "aggregator.proximal_mu=-1"),
            r"^aggregator 'fedprox': proximal_mu=-1\.0: give a finite number of at least 0$",
        ),
        (
            ("aggregator=moon", "aggregator.objectives=[{name: moon, mu: -1}]"),
            r"^objective 'moon': mu must be >= 0 and finite",
        ),
        (("sampler=rotating", "sampler.rows_per_class=0"), r"^sampler 'rotating': .*rows_per_class"),
        (
            (*TWO_CLASSES, "aggregator=fedgrab", "loss=bce"),
            r"^objective 'gradient_balancer': tail=3, but there are 2 classes; set aggregator\.tail to at most 2$",
        ),
    ],
)
def test_a_value_that_a_part_refuses_ends_the_run_before_it_begins(words, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        launch(config("engine=inline", f"output_dir={tmp_path}", *words))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loss", "sampler", "aggregator", "calibration"])
def test_what_does_not_suit_two_classes_is_not_found_out_at_the_clients(kind, tmp_path):
    """Every part as its YAML says, or with what it needs."""
    for name in registry.names(kind):
        words = (f"{kind}={name}", *NEEDS.get(name, ()))
        launch(config("engine=inline", f"output_dir={tmp_path}", *TWO_CLASSES, *words))
