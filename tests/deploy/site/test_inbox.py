"""One inbox: plans, labels and releases wait in one list, and each decision leaves a line in the log."""

from pathlib import Path

import numpy as np
import pytest
from study_plans import node_home, plan_of, run_config

from fedimb.annotation.items import read_map
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.worklist import WorklistOracle
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.files import write_private
from fedimb.deploy.pki import make_site_key
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.inbox import decide_item, inbox_items, waiting_line
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import ConfigError
from fedimb.generation.outbox import Outbox
from fedimb.privacy.audit.types import Audit, Batch, Verdict


@pytest.fixture(scope="module")
def plan():
    return plan_of(run_config())


@pytest.fixture
def home(tmp_path):
    return node_home(tmp_path / "st-anna")


def decisions(home):
    return [line["facts"] for line in AuditLog(home.file("audit.jsonl")).lines() if line["kind"] == "decision"]


def with_worklist(home, run="s0-abcdef01", rows=6):
    """A worklist of six items, of which two come back."""
    source = SourceData(np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20) % 4, tuple("abcd"))
    store = Store.build(source, home.root / "cache", "f")
    folder = home.file("worklists", run)
    WorklistOracle(folder, store, WorklistSettings(), seed=7).ask(np.arange(rows), 1)
    return folder


def returned(folder: Path, labels: dict[int, str]) -> None:
    lines = ["id,label", *(f"{item.id},{labels[item.row]}" for item in read_map(folder) if item.row in labels)]
    (folder / "cycle-01" / "returned" / "anna.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def with_release(home):
    rng = np.random.default_rng(0)
    batch = Batch(rng.random((6, 3)).astype(np.float32), np.arange(6) % 3)
    real = Batch(rng.random((9, 3)).astype(np.float32), np.arange(9) % 3)
    verdicts = {0: Verdict("pass", (), {}), 1: Verdict("fail", ("copies",), {}), 2: Verdict("pass", (), {})}
    box = Outbox(home.file("outbox"))
    return box, box.put(batch, Audit(verdicts), {"class_names": ["x", "y", "z"]}, real)


def test_nothing_waits_in_an_empty_home(home):
    assert inbox_items(home) == []
    assert waiting_line(home, "s0-abcdef01") is None


def test_a_plan_waits_until_somebody_decides(home, plan):
    receive_plan(home, plan.to_json())
    [item] = inbox_items(home)
    assert (item.kind, item.id, item.state) == ("plan", f"plan-{plan.sha}", "waiting")
    assert item.text.startswith("Seltene Fälle")
    assert "2126-01-01" in item.text
    said = decide_item(home, item.id, "approved", "Dr. Weiß")
    assert "may train here" in said
    for site in plan.sites:
        assert f"{site.name}  {site.fingerprint}" in said
    assert f"coordinator  {plan.coordinator_fingerprint}" in said
    assert inbox_items(home) == []
    assert [one.state for one in inbox_items(home, include_decided=True)] == ["approved"]
    decide_item(home, item.id, "rejected", "Dr. Weiß", "no longer")
    assert [one.state for one in inbox_items(home, include_decided=True)] == ["rejected"]
    assert [(d["to"], d["by"], d["sha"]) for d in decisions(home)] == [
        ("approved", "Dr. Weiß", plan.sha), ("rejected", "Dr. Weiß", plan.sha),
    ]  # fmt: skip


def test_a_damaged_plan_is_listed_with_its_damage(home, plan):
    receive_plan(home, plan.to_json())
    path = home.file("plans", plan.sha, "plan.json")
    path.write_text(path.read_text(encoding="utf-8").replace("heart", "lungs"), encoding="utf-8")
    [item] = inbox_items(home)
    assert item.state == "damaged"
    assert "was changed" in item.text


def test_labels_wait_with_their_number(home):
    folder = with_worklist(home)
    [item] = inbox_items(home)
    assert (item.kind, item.id, item.state) == ("labels", "labels-s0-abcdef01-01", "0/6")
    assert str(folder / "cycle-01") in item.text
    returned(folder, {0: "a", 1: "cannot judge"})
    assert inbox_items(home)[0].state == "2/6"
    line = waiting_line(home, "s0-abcdef01")
    assert line == "st-anna (labels 2/6)"
    assert str(home.root) not in line
    assert waiting_line(home, "s1-00000000") is None
    with pytest.raises(ConfigError, match="needs labels, not a decision"):
        decide_item(home, item.id, "approved", None)
    returned(folder, dict.fromkeys(range(6), "b"))
    assert inbox_items(home) == []
    assert waiting_line(home, "s0-abcdef01") is None


def test_a_release_waits_and_goes_when_approved(home):
    box, name = with_release(home)
    [item] = inbox_items(home)
    assert (item.kind, item.id, item.state) == ("release", f"release-{name}", "waiting")
    assert "2 classes" in item.text
    assert waiting_line(home, "s0") == "st-anna (release)"
    assert decide_item(home, "release", "approved", "Dr. Weiß") == f"release-{name}: 2 classes may leave"
    assert box.state(name) == {0: "released", 2: "released"}
    assert inbox_items(home) == []
    facts = {"item": "release", "sha": name, "to": "approved", "by": "Dr. Weiß", "reason": ""}
    assert decisions(home) == [facts]


def test_a_release_is_rejected_with_a_reason(home):
    box, name = with_release(home)
    decide_item(home, f"release-{name}", "rejected", None, "shows a name")
    assert box.state(name) == {0: "rejected", 2: "rejected"}
    assert box.reason(name, 0) == "shows a name"
    assert inbox_items(home) == []


def test_all_kinds_in_one_list(home, plan):
    receive_plan(home, plan.to_json())
    with_worklist(home)
    with_release(home)
    assert [item.kind for item in inbox_items(home)] == ["plan", "labels", "release"]
    assert waiting_line(home, "s0-abcdef01") == "st-anna (labels 0/6, release)"


def test_an_item_is_named_without_doubt(home, plan):
    other = plan_of(run_config(), purpose="another")
    for one in (plan, other):
        receive_plan(home, one.to_json())
    with pytest.raises(ConfigError, match="matches 2 items"):
        decide_item(home, "plan-", "approved", None)
    near = f"plan-{plan.sha[:-1]}x"
    with pytest.raises(ConfigError, match=f"Did you mean 'plan-{plan.sha}'"):
        decide_item(home, near, "approved", None)
    assert decisions(home) == []


def test_a_plan_is_not_approved_by_the_beginning_of_its_id(home, plan):
    receive_plan(home, plan.to_json())
    for item in ("plan-", f"plan-{plan.sha[:8]}", f"plan-{plan.sha[:63]}"):
        with pytest.raises(ConfigError, match=r"^To approve a plan, give its complete id or a word of its purpose"):
            decide_item(home, item, "approved", None)
    for word in ("", "Herz", "b", "Fäl"):
        with pytest.raises(ConfigError, match="is not a word of its purpose"):
            decide_item(home, "plan-", "approved", None, word=word)
    assert decisions(home) == []
    assert "is approved" in decide_item(home, "plan-", "approved", None, word="größe")
    assert "nothing runs" in decide_item(home, f"plan-{plan.sha[:8]}", "rejected", None)


def test_two_plans_whose_ids_begin_alike_are_two(home, plan, monkeypatch):
    """A collision of eight digits takes seconds to find; here each id is given the other's beginning."""
    other = plan_of(run_config(), purpose="another")
    digests = {one.purpose: "0" * 8 + one.sha[8:] for one in (plan, other)}
    monkeypatch.setattr(StudyPlan, "sha", property(lambda one: digests[one.purpose]))
    for one in (plan, other):
        receive_plan(home, one.to_json())
    with pytest.raises(ConfigError, match="matches 2 items"):
        decide_item(home, "plan-00000000", "approved", None, word="another")
    decide_item(home, f"plan-{plan.sha}", "approved", None)
    assert [(one["sha"], one["to"]) for one in decisions(home)] == [(plan.sha, "approved")]
    assert [item.id for item in inbox_items(home)] == [f"plan-{other.sha}"]


@pytest.mark.parametrize("site", ["kiel", "st-anna"])
def test_a_plan_without_this_site_or_with_another_key_for_it_is_not_approved(tmp_path, plan, site):
    home = node_home(tmp_path / site, f"site: {site}\n")
    if site == "st-anna":
        write_private(home.file("key"), make_site_key()[0])
    receive_plan(home, plan.to_json())
    why = "not for kiel" if site == "kiel" else r"lists st-anna with the key SHA256:.* but its key is SHA256:"
    with pytest.raises(ConfigError, match=why):
        decide_item(home, f"plan-{plan.sha}", "approved", None)
    assert decisions(home) == []
