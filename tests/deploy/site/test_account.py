"""A coordinator that asks for more than was agreed gets nothing more; the site's ledger survives restarts and runs."""

import json
import shutil

import numpy as np
import pytest
from deployed import Study, small_study
from evil import sign_order
from flwr.app import ConfigRecord, Message, RecordDict
from loopback import Loopback, at_node
from study_plans import keys_of

from fedimb.config.load import from_json, to_json
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import OVER_BUDGET, Shareable
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.signing import split_signature
from fedimb.deploy.site import account as accounts
from fedimb.deploy.site.account import Account, release
from fedimb.deploy.site.approvals import decide_plan, receive_plan
from fedimb.deploy.site.ledger import Ledger, LedgerDamaged
from fedimb.deploy.site.node_app import load_run
from fedimb.deploy.site.pairwise_masks import request_digest
from fedimb.deploy.site.spending import reset, spent
from fedimb.deploy.site.withdraw import withdraw
from fedimb.deploy.study_plan.budget import epsilon_of_precision
from fedimb.deploy.study_plan.plan import StudyPlan, make_plan, read_plan
from fedimb.privacy.ledger import Ledger as PrivacyLedger
from fedimb.records import array_record, arrays_of, pack
from fedimb.rundir.folder import RunFolder
from fedimb.schema import PrivacyConfig, RunConfig

NOISE = ("tracking=none", "privacy.clip=1", "privacy.noise=1", "aggregation_weight=uniform")


STUDY: list[Study] = []
"""The study of `ran`, whose coordinator signs what is asked."""


class Recorder(Loopback):
    """Keeps what one site was asked and what it replied."""

    def __init__(self, homes):
        super().__init__(homes)
        self.seen: list[tuple[Message, bytes]] = []

    def pull_messages(self, ids):
        asked = {id_: copy(self._open[id_]) for id_ in ids}
        replies = super().pull_messages(ids)
        for reply in replies:
            message = asked[reply.metadata.reply_to_message_id]
            if self.homes[message.metadata.dst_node_id].site == "va":
                self.seen.append((message, content_of(reply)))
        return replies


def copy(message: Message, **changes) -> Message:
    """A message with the same content, or with other records; ``step`` changes values of its x.fedimb."""
    content = {key: record for key, record in message.content.items() if key != "x.order"}
    if "x.fedimb" in content:
        content["x.fedimb"] = ConfigRecord({**content["x.fedimb"], **changes.pop("step", {})})
    content |= changes
    return Message(RecordDict(content), message.metadata.dst_node_id, message.metadata.message_type)


def content_of(reply: Message) -> bytes:
    """A reply's records, without the number of its line in the audit log, which every message has anew."""
    assert not reply.has_error(), reply.error
    return pack(
        RecordDict({key: record for key, record in reply.content.items() if key not in ("x.audit", "x.signature")})
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Study, RunFolder, list[tuple[Message, bytes]]]:
    """A run of two rounds with noise at two sites, and what va was asked in it."""
    made = small_study(tmp_path_factory.mktemp("study"), {"linz": 60, "va": 75}, *NOISE, runs=2)
    for home in made.homes.values():
        receive_plan(home, made.plan.to_json())
    made.approve()
    STUDY.append(made)
    folder, grid = made.new(), Recorder(made.homes.values())
    serve(folder.path, grid)
    return made, folder, grid.seen


@pytest.fixture
def va(ran, tmp_path) -> NodeHome:
    """va's folder after the run."""
    shutil.copytree(ran[0].homes["va"].root, tmp_path / "va")
    return NodeHome.open(tmp_path / "va")


def ask(home: NodeHome, message: Message) -> Message:
    """What the node replies to the message as the coordinator signs it; the message stays as it is."""
    made = copy(message)
    if "x.run" in made.content:
        run, plan = str(made.content["x.run"]["run"]), read_plan(str(made.content["x.run"]["plan"])).sha
    else:
        run = home.file("state", "flower", "1").read_text()
        plan = json.loads(home.file("state", "runs", run, "run.json").read_text())["plan"]
    sign_order(STUDY[0].deployment, plan, home.site, run, made)
    return at_node(home, made)


def refused(home: NodeHome, message: Message) -> str:
    """The text of a refusal by the ledger, which leaves one audit line and no other trace."""
    before, ledger = audit(home), home.file("ledger.jsonl").read_bytes()
    reply = ask(home, message)
    assert reply.has_error()
    assert reply.error.code == OVER_BUDGET, reply.error.reason
    (line,) = audit(home)[len(before) :]
    assert (line["kind"], line["facts"]["outcome"], line["facts"]["records"]) == ("message", "error", [])
    assert home.file("ledger.jsonl").read_bytes() == ledger
    return split_signature(reply.error.reason)[0]


def audit(home: NodeHome) -> list[dict]:
    log = AuditLog(home.file("audit.jsonl"))
    assert log.verify() is None
    return list(log.lines())


def counted(home: NodeHome, name: str = "heads"):
    ledger = Ledger(home)
    with ledger.locked():
        return spent(ledger, name)


def joining(message: Message, run: str, plan: StudyPlan | None = None, config: RunConfig | None = None, **settings):
    """A message to join another run."""
    asked = dict(message.content["x.run"])
    changed = (config or from_json(asked["cfg-json"])).model_copy(update=settings)
    asked |= {"run": run, "cfg-json": to_json(changed)}
    asked |= {"plan": plan.to_json()} if plan else {}
    return copy(message, **{"x.run": ConfigRecord(asked)})


def budget(home: NodeHome, **limits) -> NodeHome:
    """The node with limits in its node.yaml."""
    path = home.file("node.yaml")
    path.write_text(path.read_text() + f"budget: {json.dumps(limits)}\n")
    return NodeHome.open(home.root)


def test_the_same_message_gets_the_same_bytes_and_another_for_that_round_nothing(ran, va):
    _, folder, seen = ran
    (_, _), (first, reply), *_ = seen
    assert content_of(ask(va, first)) == reply
    assert content_of(ask(va, copy(first, step={"state-keep": 7}))) == reply  # it says only which old states to delete
    assert audit(va)[-1]["facts"]["again"] is True
    others = {
        "other weights": copy(
            first, arrays=array_record({k: v + 1 for k, v in arrays_of(first.content, "arrays").items()})
        ),
        "more noise in one": copy(first, step={"cohort": 1}),
        "another state": copy(first, step={"state-base": 1}),
        "a step of its own": copy(first, step={"step": 999}),
        "another scaling": copy(
            first, **{"x.scaling": array_record({"mean": np.zeros(4, np.float32), "deviation": np.ones(4, np.float32)})}
        ),
    }
    for message in others.values():
        text = refused(va, message)
        assert text.startswith("va was asked for round 1 before with another message, and answers one.")
        assert f"fedimb node ledger --release {folder.path.name} --from-round 1" in text
    assert counted(va) == counted(ran[0].homes["va"])


def test_no_round_beyond_the_plan_and_no_query_more_often(ran, va):
    (_, _), (first, _), (_, _), (scores, _) = ran[2]
    for number in (10**6, 3, 0):
        text = refused(va, copy(first, step={"round": number, "step": 17}))
        assert text == f"va answers no round {number}: this run has 2 rounds by its plan"
    assert scores.metadata.message_type == "query.scored"
    more = refused(va, copy(scores, step={"step": 17}))
    assert more == "va was asked query.scored 1 times in this run, which is all that its plan covers"
    for bad in ({"round": "1"}, {"step": -1}, {"round": True}):
        assert "without a place in a run" in refused(va, copy(first, step=bad))
    assert "without a place in a run" in refused(va, Message(RecordDict(), 102, "train"))


def test_a_plan_covers_its_number_of_runs(ran, va):
    (join, sites_reply), (first, _), *_ = ran[2]
    assert content_of(ask(va, join)) == sites_reply
    again = refused(va, joining(join, join.content["x.run"]["run"], seed=5))
    assert again == "va joined this run with another config: start a new run"
    assert content_of(ask(va, first)) == ran[2][1][1]  # the run is as it was
    assert not ask(va, joining(join, "second", seed=5)).has_error()
    assert not ask(va, joining(join, "second", seed=5)).has_error()
    text = refused(va, joining(join, "third", seed=6))
    assert text.startswith(f"va takes part in no more runs of plan {ran[0].plan.sha}: it covers 2 runs.")
    assert not va.file("state", "runs", "third").exists()
    assert counted(va).runs == 2


def another_plan(study: Study, home: NodeHome, config: RunConfig | None = None, tag: str = "heads") -> StudyPlan:
    """A plan for another purpose, which the site approved."""
    plan, about = study.plan, ("Ein anderer Versuch", study.plan.contacts, study.plan.created, study.plan.expires)
    who = (plan.coordinator, {site.name: site.key for site in plan.sites})
    shape = (plan.classes, plan.minority, plan.input_shape, *who, 5)
    made = make_plan(plan.deployment, config or study.config, *about, plan.vary, [tag], *shape)
    receive_plan(home, made.to_json())
    decide_plan(home, made.sha, "approved", "Dr. Test")
    return made


def test_another_plan_and_a_new_version_go_on_counting(ran, va, tmp_path):
    study, (join, _), (first, _) = ran[0], *ran[2][:2]
    before = counted(va)
    assert (before.runs, before.rounds, before.queries, before.samples) == (1, 2, 2, 0)
    home = budget(va, rounds=3)
    table = tmp_path / "va.csv"
    table.write_text((study.deployment.root.parent / "va.csv").read_text() + "1,2,3,4,ill\n")
    register_data(home, str(table), "heads", ["heads"], like=str(study.deployment.root.parent / "group.yaml"))
    plan = another_plan(study, home)
    assert not ask(home, joining(join, "other", plan)).has_error()
    assert not ask(home, first).has_error()
    text = refused(home, copy(first, step={"round": 2, "step": 2}))
    assert text == "va answers no more than 3 training rounds about these data (budget.rounds in its node.yaml)"
    assert counted(home).rounds == 3


def test_the_same_records_under_another_name_are_the_same_lineage(ran, va, tmp_path):
    study, (join, _) = ran[0], ran[2][0]
    home = budget(va, queries=2)
    like = str(study.deployment.root.parent / "group.yaml")
    register_data(home, str(study.deployment.root.parent / "va.csv"), "copies", ["copies"], like=like)
    plan = another_plan(study, home, tag="copies")
    assert not ask(home, joining(join, "other", plan)).has_error()  # which records they share is found on joining
    assert counted(home, "copies") == counted(home)
    assert counted(home).queries == 3
    assert "answers no more than 2 queries" in refused(home, joining(join, "another", plan))
    reset(home, "copies", "Dr. Test", "a test")
    assert counted(home).queries == 0
    assert audit(home)[-1]["facts"]["data_sets"] == ["copies", "heads"]


def test_epsilon_is_that_of_the_sites_own_share_over_all_plans(ran, va):
    study, (join, _), (first, _) = ran[0], *ran[2][:2]
    spent_here, privacy = counted(va), study.config.privacy
    whole = PrivacyLedger(privacy, 2, 1.0)
    balance: dict = {}
    for _ in range(2):
        whole.add(balance, [0, 1], 2)
    server = whole.stated(balance)["epsilon_server"]
    assert spent_here.epsilon(privacy.delta) == pytest.approx(server)
    limit = epsilon_of_precision(spent_here.updates * 3 / 2, 1e-5)
    home = budget(va, epsilon=limit)
    assert not ask(home, joining(join, "second", seed=5)).has_error()
    assert not ask(home, first).has_error()  # of the second run now
    assert counted(home).epsilon(1e-5) == pytest.approx(limit)
    text = refused(home, copy(first, step={"round": 2, "step": 2}))
    assert text.startswith(f"va answers no more than epsilon {limit:g} at delta 1e-05 about these data (budget.epsilon")
    silent = study.config.model_copy(update={"privacy": PrivacyConfig(), "aggregation_weight": "auto"})
    open_plan = another_plan(study, home, silent)
    assert "which updates without noise exceed" in refused(home, joining(join, "open", open_plan, silent))


def test_a_ledger_that_was_changed_stops_the_node_until_a_person_acts(ran, va):
    (first, reply) = ran[2][1]
    path = va.file("ledger.jsonl")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    broken = {
        "edited": whole.replace(b'"round":1', b'"round":9', 1),
        "cut": b"".join(lines[:-1]),
        "deleted": None,
        "a line gone": b"".join(lines[:2] + lines[3:]),
        "forged from its middle": b"".join(lines[:1]),
    }
    for content in broken.values():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        answer = ask(va, first)
        assert (answer.error.code, "until a person there acts" in answer.error.reason) == (OVER_BUDGET, True)
        with pytest.raises(LedgerDamaged, match="fedimb node ledger --restart"):
            Ledger(va).verify()
        assert "ledger" not in audit(va)[-1]["facts"]  # a damaged ledger is not vouched for
    path.write_bytes(broken["cut"])
    assert Ledger(va).restart("Dr. Test", "restored from a backup") == len(lines) - 1
    assert audit(va)[-1]["facts"]["what"] == "restart"
    assert content_of(ask(va, first)) == reply
    assert [one.read_bytes() for one in va.root.glob("ledger.2*.jsonl")] == [broken["cut"]]
    Ledger(va).verify()


def test_a_line_cut_short_by_a_crash_is_not_damage(ran, va):
    path = va.file("ledger.jsonl")
    path.write_bytes(path.read_bytes() + b'{"at":"20')
    assert content_of(ask(va, ran[2][1][0])) == ran[2][1][1]
    assert not ask(va, joining(ran[2][0][0], "second", seed=5)).has_error()
    Ledger(va).verify()


def test_a_person_can_release_a_round_and_it_is_counted_again(ran, va):
    _, folder, ((_, _), (first, _), (second, reply), _) = ran
    other = copy(second, arrays=array_record({k: v + 1 for k, v in arrays_of(second.content, "arrays").items()}))
    assert "--from-round 2" in refused(va, other)
    assert release(va, folder.path.name, 2, "Dr. Test", "the coordinator lost its state") == (2, 2)  # and the scores
    assert audit(va)[-1]["facts"]["reason"] == "the coordinator lost its state"
    assert content_of(ask(va, other)) != reply
    assert "before with another message" in refused(va, second)
    assert counted(va).rounds == 3
    assert not ask(va, first).has_error()


def test_replies_are_kept_while_a_resume_may_ask_for_them(ran, va, monkeypatch):
    monkeypatch.setattr(accounts, "MOST_REPLIES", 4)
    study, folder, ((_, _), (first, _), *_) = ran
    kept = va.file("state", "runs", folder.path.name, "replies")
    assert [path.name for path in sorted(kept.iterdir())] == [f"{step:06d}.safetensors" for step in (1, 2, 3)]
    config = study.config.model_copy(
        update={"rounds": 50, "checkpoint": study.config.checkpoint.model_copy(update={"every": 999})}
    )
    context = type("Context", (), {"run_id": 1})()
    run = load_run(va, context)
    account = Account(va, "long", study.plan, config, 1, 2, run.data)
    account._keep_join()
    for number in range(1, 8):
        message = copy(first, step={"round": number, "step": number})
        assert account.accept(message) is None
        account.keep(message, RecordDict({"x": ConfigRecord({"number": number})}))
    files = sorted(va.file("state", "runs", "long", "replies").iterdir())
    assert [path.name for path in files] == [f"{step:06d}.safetensors" for step in (4, 5, 6, 7)]
    with pytest.raises(Exception, match="answered round 3 before and no longer keeps that reply"):
        account.accept(copy(first, step={"round": 3, "step": 3}))
    (files[0]).write_bytes(b"another reply")
    with pytest.raises(Exception, match="is not the reply that was sent"):
        account.accept(copy(first, step={"round": 4, "step": 4}))


def test_of_two_processes_with_one_message_the_first_is_the_one(ran, va):
    study, _, ((_, _), (first, _), *_) = ran
    context = type("Context", (), {"run_id": 1})()
    data = load_run(va, context).data
    one, other = (Account(va, "twice", study.plan, study.config, 1, 2, data) for _ in range(2))
    one._keep_join()
    assert one.accept(copy(first)) is None
    assert other.accept(copy(first)) is None
    mine, late = (RecordDict({"x": ConfigRecord({"draw": draw})}) for draw in (1, 2))
    assert one.keep(first, mine) is mine
    assert pack(other.keep(first, late)) == pack(mine)
    assert counted(va).rounds == 3


def test_a_withdrawal_keeps_the_ledger(ran, va):
    _, folder, ((join, _), (first, _), *_) = ran
    before = counted(va)
    withdraw(va, "heads", ["3"], "continue")
    assert not va.file("state", "runs", folder.path.name, "replies").exists()
    assert counted(va) == before
    assert not ask(va, join).has_error()  # with the new version
    assert "answered round 1 before and no longer keeps that reply (withdrawn" in refused(va, first)
    assert counted(va).queries == before.queries + 1
    Ledger(va).verify()


def planned(study: Study, *sites: str) -> StudyPlan:
    """The study's plan for these sites: linz and va as they are, and others with keys of their own."""
    known = {site.name: site.key for site in study.plan.sites}
    listed = [{"name": site, "key": known.get(site) or keys_of(site)[1]} for site in sites]
    return StudyPlan.model_validate(study.plan.model_dump() | {"sites": listed, "runs": 9})


def summed(
    ran, va: NodeHome, run: str, plan: StudyPlan, clients: list, kind: str = "masked_scores", view: str = "validation"
) -> tuple[Account, str]:
    """The account of a new run that was asked for a masked sum over these clients, and the request's digest."""
    study, _, _ = ran
    data = load_run(va, type("Context", (), {"run_id": 1})()).data
    words = {"evaluation": {"secure": True}, "prior": {"provenance": "dp_sum"}, "clients": {"count": len(plan.sites)}}
    config = study.config.model_copy(
        update={key: getattr(study.config, key).model_copy(update=own) for key, own in words.items()}
    )
    account = Account(va, run, plan, config, 1, len(plan.sites), data)
    account._keep_join()
    place = ConfigRecord({"round": 2, "step": 3, "state-base": 0, "state-keep": 0})
    about = ConfigRecord({"name": view, "clients": clients})
    message = Message(RecordDict({"x.fedimb": place, "view": about}), 102, f"query.{kind}")
    assert account.accept(message) is None
    return account, request_digest(message).hex()


def agrees(account: Account, request: str, alive: list[int]) -> None:
    """The sum over four sites is to be opened over these."""
    about = ConfigRecord({"request": request, "clients": [0, 1, 2, 3], "alive": alive})
    place = ConfigRecord({"round": 2, "step": 4, "state-base": 0, "state-keep": 0})
    account.accept(Message(RecordDict({"x.fedimb": place, "x.sum": about}), 102, "query.sum_agree"))


def test_sums_over_another_set_of_sites_are_refused(ran, va):
    plan = planned(ran[0], "linz", "va", "x", "y")
    for run, clients in (("one", [0, 1, 2]), ("two", [2, 1, 0])):
        summed(ran, va, run, plan, clients)
    with pytest.raises(Shareable, match="answers no more than masked sums over one set of sites"):
        summed(ran, va, "three", plan, [0, 1, 3])


SECOND = "answers no more than masked sums over one set of sites about these data"


@pytest.mark.parametrize("first", ["noisy_counts", "masked_scores"])
def test_sums_about_training_and_validation_rows_are_over_one_set_of_sites(ran, va, first):
    """Validation rows are the same share of each class at every site: two sums over other sites tell one's counts."""
    plan, everyone = planned(ran[0], "linz", "va", "x", "y"), [0, 1, 2, 3]
    rows = {"noisy_counts": "train", "masked_scores": "validation"}
    (second,) = rows.keys() - {first}
    agrees(*summed(ran, va, "one", plan, everyone, first, rows[first]), everyone)
    other = summed(ran, va, "two", plan, everyone, second, rows[second])
    for alive in ([0, 1, 2], [0, 1, 3]):
        with pytest.raises(Shareable, match=SECOND):
            agrees(*other, alive)
    agrees(*other, everyone)
    assert counted(va).sets == 1
    assert [one.partition(" about ")[2] for one in counted(va).sum_sets] == ["train", "validation"]
    raised = budget(va, sum_sets=2)  # a person at the site decides otherwise
    agrees(*summed(ran, raised, "three", plan, everyone, second, rows[second]), [0, 1, 2])
    assert (counted(va).sets, counted(va).recovered) == (2, 1)
    with pytest.raises(Shareable, match="answers no more than masked sums over 2 sets of sites"):
        agrees(*summed(ran, raised, "four", plan, everyone, first, rows[first]), [0, 1, 3])


def test_sites_are_known_by_their_keys_not_by_their_places_in_a_plan(ran, va):
    """Three of four sites in turn are clients 0, 1 and 2 of each plan: the four sums give every site's figures."""
    study = ran[0]
    summed(ran, va, "one", planned(study, "linz", "va", "x"), [0, 1, 2])
    summed(ran, va, "again", planned(study, "linz", "va", "x"), [0, 1, 2])
    with pytest.raises(Shareable, match="answers no more than masked sums over one set of sites"):
        summed(ran, va, "two", planned(study, "linz", "va", "y"), [0, 1, 2])
    renamed = planned(study, "linz", "va", "x").model_dump()
    renamed["sites"][2]["key"] = keys_of("y")[1]
    with pytest.raises(Shareable, match="answers no more than masked sums over one set of sites"):
        summed(ran, va, "three", StudyPlan.model_validate(renamed), [0, 1, 2])


@pytest.mark.parametrize("clients", [["0", "1", "2"], [0.0, 1.0, 2.0], [True, True, True], [0, 1, 1, 2], [0, 1, 9], []])
@pytest.mark.parametrize("kind", ["masked_scores", "noisy_counts"])
def test_one_reading_of_the_clients_in_a_sum(ran, va, clients, kind):
    """What the masks took for clients 0, 1 and 2 was no client for the ledger: no set of sites, and epsilon 0."""
    with pytest.raises(Shareable, match=r"takes part in no such sum|takes part in sums over the 4 sites of the plan"):
        summed(ran, va, "one", planned(ran[0], "linz", "va", "x", "y"), clients, kind)
