"""Over real servers and nodes: a node killed during a round stays away, and masked sums are opened without it."""

import signal

import pytest
from behind_nginx import NGINX
from deployed import events, in_background, small_study, usable

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.servers import Servers
from fedimb.deploy.site.approvals import receive_plan
from fedimb.rundir.result import RunResult

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]
SITES = {"linz": 40, "roma": 40, "st-anna": 40, "va": 60}


def test_a_node_that_is_gone_is_left_out_of_the_masked_sums(tmp_path):
    words = ("prior.provenance=secure_sum", "loss=balanced_softmax", "evaluation.secure=true", "tracking=none")
    study = small_study(tmp_path, SITES, *words)
    for home in study.homes.values():
        settings = home.file("node.yaml")  # the counts are over all four, the scores over three: each site's decision
        settings.write_text(settings.read_text() + "\nbudget: {sum_sets: 2}\n")
        receive_plan(home, study.plan.to_json())
    study.approve()
    study.tamper("va", "sleep", [1], seconds=60)
    folder = study.new("rounds=1", away_s=30)
    with Servers(study.deployment), study.nodes():
        thread, said = in_background(lambda: study.execute(folder))
        study.signal_in("va", 1, signal.SIGKILL, 1200)
        study.stop("va")
        thread.join(1500)
    assert isinstance(said[0], RunResult), said
    assert usable(folder) == [3]
    assert "va is away; asked again when it is back" in events(folder)
    missing = [(one["site"], one["where"]) for one in said[0].left_out]
    assert missing == [("va", "masked_scores")]
    assert said[0].prior_counts is not None
    assert said[0].prior_counts.sum() == 135  # counts of all four, while va was there
    assert said[0].confusion.sum() == 30  # scores of three
    for site in ("linz", "roma", "st-anna"):
        lines = [line["facts"] for line in AuditLog(study.homes[site].file("audit.jsonl")).lines()]
        assert [one["without"] for one in lines if "without" in one] == [[], ["va"]]
