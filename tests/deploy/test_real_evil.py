"""Over real servers and nodes: a site, its coordinator or somebody between them lies, and gets nowhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from asks_again import greedy_servers
from behind_nginx import NGINX
from deployed import Study, events, small_study, usable, weights

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.servers import Servers
from fedimb.deploy.incidents import NOT_APPROVED, ORDER_REFUSED, WAITING
from fedimb.deploy.site.approvals import receive_plan
from fedimb.errors import FedimbError, RunFailed, RunWaiting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]
CLAIM = 10_000


class Up(NamedTuple):
    """A study whose servers and nodes run, its plan approved by all.

    Attributes:
        told: a file with what the coordinator asks for instead of its run (`greedy_servers`).
    """

    study: Study
    told: Path


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("evil")
    rows = {"linz": 60, "st-anna": 60, "va": 60}
    study = small_study(folder, rows, "tracking=none", "rounds=1", "clients.max_weight_share=0.5")
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    told = folder / "greedy"
    with Servers(study.deployment, greedy_servers(folder / "greedy-hook", told)), study.nodes():
        yield Up(study, told)


@pytest.fixture(autouse=True)
def _honest(up: Up) -> Iterator[None]:
    yield
    up.study.honest()
    up.told.unlink(missing_ok=True)


def test_an_altered_order_and_an_altered_reply_are_refused_and_the_run_goes_on(up: Up) -> None:
    """Round 1: va's order is altered before it arrives. Round 2: its reply, after it was signed. Round 3: nothing."""
    study, folder = up.study, up.study.new("rounds=3", away_s=60)
    study.tamper("va", "wire", [1, 2], how={"1": "order", "2": "reply"})
    study.execute(folder)
    assert usable(folder) == [2, 2, 3]
    order, reply = events(folder)
    assert "(code 1307), so it may be anybody's: va refused a message whose signature is not" in order
    assert reply.startswith("va: a reply was left out, because va did not sign it for this message")
    flower_run = str(folder.read_json("flower.json")["run-id"])  # a refused message's line has no other name of its run
    refused = [line for line in study.messages("va", flower_run) if line["code"] == ORDER_REFUSED]
    assert [line["round"] for line in refused] == [1]


def test_a_site_that_claims_far_more_rows_is_half_of_the_mean_and_of_the_score(up: Up, tmp_path: Path) -> None:
    """va claims 10,000 times its rows, on joining and later; it adds 1 to each weight, and says that it finds all."""
    study, folder = up.study, up.study.new()
    study.tamper("va", "boast", [], times=CLAIM)
    result = study.execute(folder)
    assert usable(folder) == [3]
    assert result.left_out == []  # all of it is within the plan's limits
    assert folder.read_json("joined.json")["va"]["rows"] == 45 * CLAIM  # nor does joining with them end the run
    honest = weights(study.simulated(tmp_path))
    for name, value in weights(result).items():  # a mean by rows would move each by 1
        assert value - honest[name] == pytest.approx(0.5, abs=0.1), name

    alone = result.without_site["fedavg"]
    assert {site: one["rows"] for site, one in alone.items()} == {"linz": 15, "st-anna": 15, "va": 15 * CLAIM}
    assert result.confusion.sum() == pytest.approx(2 * (15 + 15), abs=2)  # its counts are rounded down
    assert min(alone[site]["macro_recall"] for site in ("linz", "st-anna")) > 0.99
    assert alone["va"]["macro_recall"] < 0.8  # what the others' rows say of this model


@pytest.mark.parametrize(
    ("lie", "error", "code", "why"),
    [
        ("client", RunFailed, NOT_APPROVED, "va does not join: it was asked as client 0 of 3; the plan makes it 2 of "),
        ("text", RunFailed, ORDER_REFUSED, "va refused a message whose signature is not the coordinator's"),
        ("plan", RunWaiting, WAITING, "waiting: va (plan "),
    ],
)
def test_asked_as_another_client_or_under_another_plan_a_site_answers_nothing(
    up: Up, lie: str, error: type[FedimbError], code: int, why: str
) -> None:
    """The other plan is the approved one with 1,000 runs, signed as if it were that one, or as what it is."""
    study, folder, home = up.study, up.study.new(), up.study.homes["va"]
    up.told.write_text(lie)
    audit, ledger = AuditLog(home.file("audit.jsonl")), home.file("ledger.jsonl")
    before = len(list(audit.lines())), ledger.read_bytes() if ledger.exists() else b""
    with pytest.raises(error, match=re.escape(why)):
        study.execute(folder)
    *received, line = list(audit.lines())[before[0] :]
    facts = line["facts"]
    assert [one["kind"] for one in received] == (["plan received"] if lie == "plan" else [])
    assert line["kind"] == "message"
    assert (facts["type"], facts["outcome"], facts["code"]) == ("query.join_site", "error", code)
    assert facts["text"].startswith(why)
    assert facts["records"] == []
    assert not home.file("state", "runs", folder.path.name).exists()
    assert (ledger.read_bytes() if ledger.exists() else b"") == before[1]  # it cost the site's budget nothing

    up.told.unlink()
    study.execute(folder)  # the same run, asked as the plan has it
    assert usable(folder) == [3]
    assert [one["outcome"] for one in study.messages("va", folder.path.name)] == ["sent"] * 3
