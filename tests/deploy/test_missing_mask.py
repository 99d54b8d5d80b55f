"""A site is missing from a masked sum: the run goes on, and a coordinator that lies about who is missing gets nothing.

The coordinator here holds everything that a coordinator can: va answered, its reply was kept and called lost. The run
has stopped after its first masked sum, which was opened over the other three of four sites.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from deployed import events, small_study
from evil import sign_order
from evil_site import EvilSite
from flwr.app import ConfigRecord, Error, Message, RecordDict
from loopback import Loopback, at_node

from fedimb.contracts import platform as names
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.serve import serve
from fedimb.deploy.incidents import Shareable
from fedimb.deploy.signing import load_key, sign
from fedimb.deploy.site.approvals import receive_plan
from fedimb.deploy.site.ledger import Ledger
from fedimb.deploy.site.masked_opening import SumOpening
from fedimb.deploy.site.spending import spent
from fedimb.errors import RunFailed
from fedimb.privacy.recoverable_sum import expand
from fedimb.privacy.secret_sharing import join
from fedimb.records import array_record, arrays_of
from fedimb.report.panel import panels
from fedimb.rundir.result import RunResult

SITES = {"linz": 40, "roma": 40, "st-anna": 40, "va": 60}
OTHERS = [0, 1, 2]
COUNTS = "query.masked_counts"
WORDS = ("prior.provenance=secure_sum", "loss=balanced_softmax", "evaluation.secure=true", "tracking=none", "rounds=1")


def approved(tmp_path, *words, **more):
    study = small_study(tmp_path, SITES, *WORDS, *words, **more)
    for home in study.homes.values():
        receive_plan(home, study.plan.to_json())
    study.approve()
    return study


class Keeps(EvilSite):
    """Calls va's masked counts lost, and keeps what everybody sent; rounds fail at first, so that the run stops."""

    def __init__(self, homes, run_id=1, stop=True):
        self.kept: list[tuple[Message, Message]] = []
        super().__init__(homes, "va", self.lose, run_id)
        if stop:
            self.faults = lambda site, message: 1 if message.metadata.message_type == "train" else None

    def lose(self, message, reply):
        if message.metadata.message_type == COUNTS and not reply.has_error():
            self.kept.append((message, Message(RecordDict(dict(reply.content)), reply_to=message)))
            return Message(Error(7, "the connection was lost"), reply_to=message)
        return None

    def pull_messages(self, ids):
        listed = list(ids)
        asked = {id_: self._open[id_] for id_ in listed}
        replies = super().pull_messages(listed)
        self.kept += [(asked[reply.metadata.reply_to_message_id], reply) for reply in replies if not reply.has_error()]
        return replies

    def last(self, site, kind):
        """(message, reply) of a site."""
        node = {home.site: node for node, home in self.homes.items()}[site]
        return [(m, r) for m, r in self.kept if (m.metadata.dst_node_id, m.metadata.message_type) == (node, kind)][-1]


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    study = approved(tmp_path_factory.mktemp("halted"), runs=3)
    folder, grid = study.new(), Keeps(study.homes.values())
    with pytest.raises(RunFailed, match="round 1: only 0 of 4"):
        serve(folder.path, grid)
    return SimpleNamespace(study=study, folder=folder, grid=grid)


def opening(halted, site, kind, alive, clients=(0, 1, 2, 3), signatures=None, request=None):
    """A message that would open the sum over ``alive``."""
    shares = halted.grid.last(site, COUNTS)[1].content[names.SHARES]
    digest = arrays_of({names.SHARES: shares}, names.SHARES)["request"].tobytes().hex()
    about = {"request": request or digest, "clients": list(clients), "alive": list(alive)}
    place = {"round": 0, "step": 7, "state-base": 0, "state-keep": 0}
    content = RecordDict({names.SUM: ConfigRecord(about), names.STEP: ConfigRecord(place)})
    if kind == names.SUM_OPEN:
        content[names.AGREED] = ConfigRecord(honest_signatures(halted) if signatures is None else signatures)
        content[names.SHARES] = halted.grid.last("linz", "query.sum_open")[0].content[names.SHARES]
    return Message(content, 101, f"query.{kind}")


def lied(halted, site, *about, **more):
    """What a site answers to such a message, signed by the coordinator."""
    message = opening(halted, site, *about, **more)
    sign_order(halted.study.deployment, halted.study.plan.sha, site, halted.folder.path.name, message)
    return at_node(halted.study.homes[site], message, halted.grid.run_id)


def honest_signatures(halted):
    return dict(halted.grid.last("linz", "query.sum_open")[0].content.config_records[names.AGREED])


def test_the_run_goes_on_over_the_others_and_says_so(halted):
    assert "va: the connection was lost" in events(halted.folder)
    assert {kind for site, kind in halted.grid.asked if site == "va"} == {"query.join_site", COUNTS, "train"}
    for site, home in halted.study.homes.items():
        lines = [line["facts"] for line in AuditLog(home.file("audit.jsonl")).lines() if line["kind"] == "masked sum"]
        told = [(facts["over"], facts["without"]) for facts in lines]
        assert told == ([] if site == "va" else [(["linz", "roma", "st-anna"], ["va"])])
        counted = _spent(home)
        assert counted.recovered == (0 if site == "va" else 1)
        assert summed_over(counted) == ([] if site == "va" else ["linz roma st-anna, train"])


def summed_over(counted):
    """The names of the sites in each set, and the rows."""
    parts = [one.partition(" about ") for one in counted.sum_sets]
    return [f"{' '.join(site.split()[0] for site in sites.split(', '))}, {rows}" for sites, _, rows in parts]


def _spent(home):
    ledger = Ledger(home)
    with ledger.locked():
        return spent(ledger, "heads")


@pytest.mark.parametrize("site", ["linz", "roma", "st-anna"])
@pytest.mark.parametrize(
    ("kind", "alive", "why"),
    [
        (names.SUM_AGREE, [0, 1, 2, 3], "agreed to open this sum over linz, roma, st-anna, and opens it over no other"),
        (names.SUM_OPEN, [0, 1, 2, 3], "agreed to open this sum over linz, roma, st-anna, and opens it over no other"),
    ],
)
def test_a_second_set_for_one_sum_is_refused(halted, site, kind, alive, why):
    """The whole sum minus the one over three would be va's counts."""
    assert why in lied(halted, site, kind, alive).error.reason


@pytest.mark.parametrize(
    ("alive", "clients", "why"),
    [
        (
            [0, 1],
            [0, 1, 2, 3],
            "opens a sum over at least 3 of 4 sites, itself among them; it was asked for one over 2",
        ),
        ([0, 2, 1], [0, 1, 2, 3], "opens a sum over at least 3 of 4"),
        ([0, 1, 1, 2], [0, 1, 2, 3], "opens a sum over at least 3 of 4"),
        ([1, 2, 3], [0, 1, 2, 3], "itself among them"),
        ([0, 1, 4], [0, 1, 2, 3], "opens a sum over at least 3 of 4"),
        ([0, 1, 2], [0, 1, 2], "opens no sum but one that it was asked for in this run, with the same sites"),
    ],
)
def test_a_set_that_is_none_is_refused(halted, alive, clients, why):
    assert why in lied(halted, "linz", names.SUM_AGREE, alive, clients).error.reason


def test_va_itself_agrees_to_no_set_without_it_and_opens_nothing_alone(halted):
    assert "itself among them" in lied(halted, "va", names.SUM_AGREE, OTHERS).error.reason
    reply = lied(halted, "va", names.SUM_OPEN, [0, 1, 2, 3])
    assert "opens no sum before it has agreed" in reply.error.reason


def test_a_sum_that_a_site_was_not_asked_for_is_not_opened(halted):
    for request in ("0" * 64, "", "zz"):
        reply = lied(halted, "roma", names.SUM_AGREE, OTHERS, request=request or "nothing")
        assert "opens no sum but one that it was asked for in this run" in reply.error.reason


def test_shares_are_revealed_only_with_the_signatures_of_enough_sites(halted):
    """Two signatures, one of them twice, one of another set, one that the coordinator made: never three."""
    study, signed = halted.study, honest_signatures(halted)
    assert sorted(signed) == ["0", "1", "2"]
    forged = sign(load_key(study.deployment.file("sign.key")), b"masked sum")

    def opened(signatures, alive=OTHERS):
        message = opening(halted, "roma", names.SUM_OPEN, alive, signatures=signatures)
        return SumOpening(study.homes["roma"], study.plan, halted.folder.path.name, 1, message).reply()

    for wrong in ({"0": signed["0"], "1": signed["1"]}, signed | {"2": signed["1"]}, signed | {"2": forged}, {}):
        with pytest.raises(Shareable, match="opens a sum once 3 sites have signed the same list of sites in it"):
            opened(wrong)
    with pytest.raises(Shareable, match="it was sent 0 of their signatures"):
        opened(signed | {"3": signed["0"]}, [0, 1, 2, 3])
    assert sorted(opened(signed)[names.OPENED]) == ["from/1"]  # what was sent for linz is not for roma


def test_the_figures_that_were_kept_back_stay_hidden(halted):
    """All that the coordinator got: the seeds between va and the others. va's own is not among them."""
    kept = halted.grid.last("va", COUNTS)[1].content
    figures = arrays_of(kept, names.COUNTS)["counts"]
    revealed = [halted.grid.last(site, "query.sum_open")[1].content for site in ("linz", "roma", "st-anna")]
    assert all(sorted(arrays_of(one, names.OPENED)) == ["from/0", "from/1", "from/2"] for one in revealed)
    rest = figures.copy()
    for client in OTHERS:
        rows = {holder: arrays_of(one, names.OPENED)[f"from/{client}"] for holder, one in enumerate(revealed)}
        rest += expand(join({holder: row[1].tobytes() for holder, row in rows.items()}), rest.size)
    assert rest.min() > 1000  # as random as before: va's own mask is left on its counts of 9 and 36 rows


def test_a_coordinator_killed_while_a_sum_is_opened_opens_it_once(tmp_path):
    """Killed after linz has signed the list of sites, and again after two have revealed their shares."""
    study = approved(tmp_path)
    folder, asked = study.new(), []

    def served(run_id, *death):
        def faults(site, message):
            if (site, message.metadata.message_type) == death:
                raise OSError("the servers are gone")

        grid = Loopback(study.homes.values(), run_id, faults)
        try:
            serve(folder.path, grid)
        finally:
            asked.extend(grid.asked)

    for run_id, death in enumerate((("roma", "query.sum_agree"), ("st-anna", "query.sum_open")), 1):
        with pytest.raises(OSError, match="gone"):
            served(run_id, *death)
    served(3)
    assert RunResult.read(folder.path).prior_counts.sum() == 135
    assert RunResult.read(folder.path).left_out == []
    for site, home in study.homes.items():
        counted = _spent(home)
        assert (counted.runs, counted.rounds, counted.queries) == (1, 1, 7)  # as of a run that nobody has killed
        assert (counted.sets, counted.recovered) == (1, 0)
        lines = [line["facts"] for line in AuditLog(home.file("audit.jsonl")).lines() if line["kind"] == "masked sum"]
        assert [facts["over"] for facts in lines] == [["linz", "roma", "st-anna", "va"]] * 2
        assert asked.count((site, COUNTS)) == 1  # what they sent is known
    assert asked.count(("linz", "query.sum_agree")) == 3  # its signature is sent again, byte for byte


@pytest.mark.slow
def test_a_site_that_is_back_is_in_no_later_sum_of_the_run(halted, tmp_path):
    """va replies again; scores over all four, beside counts over three, would tell va's rows of each class."""
    study, folder = halted.study, halted.folder
    grid = Loopback(study.homes.values(), 2)
    serve(folder.path, grid)
    result = RunResult.read(folder.path)
    whole = study.simulated(tmp_path / "simulated")
    assert result.prior_counts is not None
    assert whole.prior_counts is not None
    own = whole.prior_counts - result.prior_counts
    assert own.sum() == 45  # of va's 60 rows, a quarter validates
    for one, other in zip(result.rows, whole.rows, strict=True):
        assert other.confusion.sum() - one.confusion.sum() == 15
    about = [(one["site"], one["where"], one["record"]) for one in result.left_out]
    assert about == [("va", "masked_counts", "masked sum"), ("va", "masked_scores", "masked sum")]
    text = panels(result)
    assert "va, masked_counts: masked sum is opened without its figures (3 of 4 are in)" in text
    assert "va, masked_scores: masked sum is opened without its figures, as an earlier sum" in text
    assert _spent(study.homes["linz"]).recovered == 2
    assert _spent(study.homes["linz"]).sets == 1
    assert COUNTS not in {kind for _, kind in grid.asked}  # the sum is known
    assert summed_over(_spent(study.homes["va"])) == []


@pytest.mark.slow
def test_another_run_over_all_sites_would_give_the_difference_and_is_refused(halted):
    """Same rows, the set of all four: minus the sum over three these are va's counts."""
    study = halted.study
    folder = study.new("seed=1")
    with pytest.raises(RunFailed, match="sum_agree"):
        serve(folder.path, Loopback(study.homes.values(), 3))
    why = "answers no more than masked sums over one set of sites"
    assert [event.split()[0] for event in events(folder) if why in event] == ["linz", "roma", "st-anna"]
    again = study.new("seed=2")
    serve(again.path, Keeps(study.homes.values(), 4, stop=False))  # without va, as before
    assert RunResult.read(again.path).prior_counts is not None


@pytest.mark.slow
def test_with_all_sites_nothing_is_different(tmp_path):
    study = approved(tmp_path)
    folder, grid = study.new(), Loopback(study.homes.values())
    serve(folder.path, grid)
    result, simulated = RunResult.read(folder.path), study.simulated(tmp_path / "simulated")
    assert result.prior_counts.tolist() == simulated.prior_counts.tolist()
    assert result.left_out == []
    kinds = [kind for site, kind in grid.asked if site == "va"]
    assert kinds.count("query.sum_agree") == kinds.count("query.sum_open") == 2
    assert _spent(study.homes["va"]).recovered == 0
    sent = {record["key"] for facts in study.messages("va", folder.path.name) for record in facts["records"]}
    assert {"x.shares", "x.agreed", "x.opened"} <= sent


@pytest.mark.slow
def test_two_missing_of_four_leave_the_sum_hidden_until_one_is_back(tmp_path):
    study = approved(tmp_path)
    folder = study.new()

    def gone(site, message):
        return 1304 if message.metadata.message_type == COUNTS and site in ("linz", "va") else None

    with pytest.raises(
        RunFailed, match="2 of 4 replied, and 3 are needed to open a masked sum; fix the others and res"
    ):
        serve(folder.path, Loopback(study.homes.values(), 1, gone))
    serve(folder.path, Loopback(study.homes.values(), 2, lambda site, m: gone(site, m) if site == "va" else None))
    assert [one["site"] for one in RunResult.read(folder.path).left_out] == ["va"]


@pytest.mark.slow
def test_one_that_sends_no_shares_is_like_one_that_is_missing(tmp_path):
    study = approved(tmp_path)
    folder = study.new()

    def without(message, reply):
        if message.metadata.message_type == COUNTS:
            shares = arrays_of(reply.content, names.SHARES)
            reply.content[names.SHARES] = array_record({name: shares[name] for name in ("request", "commitments")})

    serve(folder.path, EvilSite(study.homes.values(), "va", without))
    assert [one["site"] for one in RunResult.read(folder.path).left_out] == ["va"]
    left = json.loads((folder.path / "left_out.jsonl").read_text().splitlines()[0])
    assert not left["counts"]
    assert np.all(np.isfinite(RunResult.read(folder.path).prior_counts))
