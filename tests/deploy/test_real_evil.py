"""Over real servers and nodes: somebody between a site and the coordinator changes messages, and gets nowhere."""

import pytest
from behind_nginx import NGINX
from deployed import events, small_study, usable

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.servers import Servers
from fedimb.deploy.incidents import ORDER_REFUSED
from fedimb.errors import RunWaiting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]


def test_an_altered_order_and_an_altered_reply_are_refused_and_the_run_goes_on(tmp_path):
    """Round 1: va's order is altered before it arrives. Round 2: its reply, after it was signed. Round 3: nothing."""
    study = small_study(tmp_path, {"linz": 60, "st-anna": 60, "va": 60}, "tracking=none", "rounds=3")
    study.tamper("va", "wire", [1, 2], how={"1": "order", "2": "reply"})
    folder = study.new(join_s=90, away_s=60)
    with Servers(study.deployment), study.nodes():
        with pytest.raises(RunWaiting):
            study.execute(folder)
        study.approve()
        study.execute(folder)
    assert usable(folder) == [2, 2, 3]
    order, reply = events(folder)
    assert "(code 1307), so it may be anybody's: va refused a message whose signature is not" in order
    assert reply.startswith("va: a reply was left out, because va did not sign it for this message")
    lines = [line["facts"] for line in AuditLog(study.homes["va"].file("audit.jsonl")).lines()]
    assert [facts["round"] for facts in lines if facts.get("code") == ORDER_REFUSED] == [1]
