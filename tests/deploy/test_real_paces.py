"""A run without rounds over real servers: nodes reply at their own times, and the record gives the same weights."""

from pathlib import Path

import numpy as np
import pytest
from behind_nginx import NGINX
from deployed import small_study, weights

from fedimb.deploy.coordinator.servers import Servers
from fedimb.errors import RunWaiting
from fedimb.rundir.arrival_journal import read_arrivals
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
    pytest.mark.slow,
    pytest.mark.alone,
]


def test_arrivals_over_real_servers_repeat_to_the_bit(tmp_path: Path) -> None:
    words = ("tracking=none", "rounds=3", "pace=buffered", "pace.concurrency=2", "pace.buffer=1")
    study = small_study(tmp_path, {"linz": 60, "st-anna": 90}, *words)
    folder = study.new(join_s=60, away_s=60)
    with Servers(study.deployment), study.nodes():
        with pytest.raises(RunWaiting):
            study.execute(folder)
        study.approve()
        result = study.execute(folder)
    arrivals, _ = read_arrivals(folder.path / "arrivals.jsonl")
    assert sum(not one.failed for one in arrivals) == 3
    config = study.config.model_copy(update={"output_dir": str(tmp_path / "again")})
    again = launch(config, None, ProgressBar(1, enabled=False), arrivals=folder.path)
    for name, value in weights(result).items():
        np.testing.assert_array_equal(weights(again)[name], value)
