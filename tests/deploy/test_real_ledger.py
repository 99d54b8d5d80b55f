"""Over real servers: a coordinator that asks for a run again gets the same bytes, and for anything else nothing."""

from pathlib import Path

import pytest
from asks_again import greedy_servers
from behind_nginx import NGINX
from deployed import small_study, weights

from fedimb.deploy.coordinator.servers import Servers
from fedimb.deploy.site.approvals import receive_plan
from fedimb.errors import RunFailed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]


def test_a_coordinator_that_asks_again_gets_nothing_more(tmp_path: Path) -> None:
    noise = ("privacy.clip=1", "privacy.noise=1", "aggregation_weight=uniform")
    study = small_study(tmp_path, {"linz": 60, "va": 75}, "tracking=none", *noise, runs=1)
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    told = tmp_path / "greedy"
    with Servers(study.deployment, greedy_servers(tmp_path / "greedy-hook", told)), study.nodes():
        folder = study.new()
        first = weights(study.execute(folder))

        def forget() -> None:
            """The coordinator has lost the run, or says so: a new one has its name."""
            nonlocal folder
            folder.path.rename(tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}")
            folder = study.new()

        forget()
        again = weights(study.execute(folder))
        assert {name: value.tobytes() for name, value in again.items()} == {n: v.tobytes() for n, v in first.items()}
        for what, answer in (
            ("weights", "was asked for round 2 before with another"),
            ("round", "answers no round 1000000"),
        ):
            forget()
            told.write_text(what)
            with pytest.raises(RunFailed, match=f"(?s)only 0 of 2 clients.*linz {answer}"):
                study.execute(folder)
        told.unlink()
        with pytest.raises(RunFailed, match=r"takes part in no more runs of plan .{64}: it covers 1 run"):
            study.execute(study.new("seed=7"))
    for site, home in study.homes.items():
        lines = study.messages(site, folder.path.name)
        sent = [
            line["records"] for line in lines if (line["type"], line.get("round")) == ("train", 2) and line["records"]
        ]
        assert len(sent) == 2
        assert sent[0] == sent[1]
        assert [line["code"] for line in lines if line["outcome"] == "error"] == [1320, 1320], home.site
