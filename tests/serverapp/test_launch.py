"""What a run refuses before there is a run folder."""

import pytest
from small_runs import config

from fedimb.errors import ConfigError
from fedimb.serverapp.launch import launch


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
    ],
)
def test_a_value_that_a_part_refuses_ends_the_run_before_it_begins(words, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        launch(config("engine=inline", f"output_dir={tmp_path}", *words))
    assert not list(tmp_path.iterdir())
