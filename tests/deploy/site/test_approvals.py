"""What a site agreed to, and that nothing runs without it."""

import json

import pytest
from study_plans import node_home, plan_of

from fedimb.config.load import to_json
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.incidents import NOT_APPROVED, WAITING, Shareable
from fedimb.deploy.site import approvals
from fedimb.errors import ConfigError, DataError


@pytest.fixture
def home(tmp_path):
    return node_home(tmp_path / "st-anna")


def test_nothing_is_approved_unless_somebody_did(home, plan, config):
    assert approvals.approved_plan(home, plan.sha) is None
    with pytest.raises(Shareable, match=rf"waiting: st-anna \(plan {plan.sha}\)") as caught:
        approvals.require_approval(home, plan.to_json(), to_json(config))
    assert caught.value.code == WAITING
    assert approvals.receive_plan(home, plan.to_json()) == "waiting"
    assert approvals.approved_plan(home, plan.sha) is None
    approvals.decide_plan(home, plan.sha, "approved", "Dr. Weiß")
    assert approvals.receive_plan(home, plan.to_json()) == "approved"
    assert approvals.approved_plan(home, plan.sha) == plan
    assert approvals.require_approval(home, plan.to_json(), to_json(config)) == (plan, config)


def test_the_approval_of_a_plan_is_for_no_other(home, plan, config):
    approvals.receive_plan(home, plan.to_json())
    approvals.decide_plan(home, plan.sha, "approved", None)
    other = plan_of(config, purpose="something else")
    with pytest.raises(Shareable, match="waiting"):
        approvals.require_approval(home, other.to_json(), to_json(config))
    with pytest.raises(Shareable, match=r"st-anna: study plan .* does not cover rounds=9") as caught:
        approvals.require_approval(home, plan.to_json(), to_json(config.model_copy(update={"rounds": 9})))
    assert caught.value.code == NOT_APPROVED


def test_an_approval_can_be_withdrawn_and_its_reason_stays(home, plan, config):
    approvals.receive_plan(home, plan.to_json())
    approvals.decide_plan(home, plan.sha, "approved", None)
    approvals.decide_plan(home, plan.sha, "rejected", "Dr. Weiß", "consent of patient 4711")
    assert approvals.approved_plan(home, plan.sha) is None
    with pytest.raises(Shareable, match=f"plan {plan.sha} is rejected$"):
        approvals.require_approval(home, plan.to_json(), to_json(config))
    last = list(AuditLog(home.file("audit.jsonl")).lines())[-1]
    assert last["kind"] == "decision"
    facts = {"item": "plan", "sha": plan.sha, "to": "rejected", "by": "Dr. Weiß", "reason": "consent of patient 4711"}
    assert last["facts"] == facts


def test_an_expired_plan_trains_nothing(home, config):
    old = plan_of(config, created="2020-01-01T00:00:00Z", expires="2020-12-31T23:59:59Z")
    assert approvals.receive_plan(home, old.to_json()) == "expired"
    with pytest.raises(ConfigError, match="expired on 2020-12-31"):
        approvals.decide_plan(home, old.sha, "approved", None)
    decided = {"sha": old.sha, "state": "approved", "by": "x", "at": "2020-02-01T00:00:00Z", "reason": ""}
    home.file("plans", old.sha, "decision.json").write_text(json.dumps(decided))
    assert approvals.approved_plan(home, old.sha) is None
    with pytest.raises(Shareable, match="is expired"):
        approvals.require_approval(home, old.to_json(), to_json(config))


def test_a_plan_edited_at_the_site_is_not_the_one_approved(home, plan, config):
    approvals.receive_plan(home, plan.to_json())
    approvals.decide_plan(home, plan.sha, "approved", None)
    path = home.file("plans", plan.sha, "plan.json")
    path.write_text(path.read_text(encoding="utf-8").replace("heart", "lungs"), encoding="utf-8")
    with pytest.raises(DataError, match="was changed"):
        approvals.approved_plan(home, plan.sha)
    path.unlink()
    assert approvals.approved_plan(home, plan.sha) is None


def test_a_decision_moved_to_another_plan_does_not_count(home, plan, config):
    other = plan_of(config, purpose="something else")
    for one in (plan, other):
        approvals.receive_plan(home, one.to_json())
    approvals.decide_plan(home, plan.sha, "approved", None)
    decided = home.file("plans", plan.sha, "decision.json").read_bytes()
    home.file("plans", other.sha, "decision.json").write_bytes(decided)
    with pytest.raises(DataError, match="about another plan"):
        approvals.approved_plan(home, other.sha)


def test_a_plan_for_another_release_is_not_kept(home, plan):
    tree = json.loads(plan.to_json())
    tree["release"]["fedimb"] = "9.9.9"
    with pytest.raises(Shareable, match=r"st-anna cannot run plan .*: it is for fedimb 9\.9\.9"):
        approvals.receive_plan(home, json.dumps(tree))
    assert approvals.received_plans(home) == []
