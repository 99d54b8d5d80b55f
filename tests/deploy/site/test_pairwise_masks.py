"""Masks between sites: they cancel, the coordinator cannot make them, and sites keep to one set of sites and keys."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from scipy.stats import kstest
from study_plans import node_home, plan_of, run_config

from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.files import write_private
from fedimb.deploy.incidents import Shareable
from fedimb.deploy.pki import make_site_key
from fedimb.deploy.site.pairwise_masks import NodeSecrets, keys_digest, public_key, request_digest, signed_run_key
from fedimb.engine.flower_private import ensure_identity
from fedimb.privacy.secrets import SIMULATED
from fedimb.privacy.secure_sum import mask_values, unmasked_sum
from fedimb.records import array_record
from fedimb.seeds import Stream

SITES = ("linz", "st-anna", "va")
ASKED = SimpleNamespace(client=0, step=1, round=3, config=SimpleNamespace(seed=0))


@pytest.fixture
def homes(tmp_path):
    return [node_home(tmp_path / site, f"site: {site}\n") for site in SITES]


PLAN = plan_of(run_config("clients.count=3"))


def request(homes, step=1, base=0, **more):
    """A request for masked figures as the coordinator would send it to one site."""
    ensure_identity()
    about = ConfigRecord({"round": 3, "step": step, "state-base": base, "state-keep": 0})
    keys = {str(client): signed_run_key(home, PLAN.sha, "run") for client, home in enumerate(homes)}
    pairs = ConfigRecord(keys)
    content = {"x.fedimb": about, "x.pairs": pairs, "view": ConfigRecord({"name": "train"}), **more}
    return Message(RecordDict(content), 101, "query.masked_counts")


def secrets(homes, client, message):
    return NodeSecrets(homes[client], PLAN, "run", client, message)


def sent(homes, values, clients, message):
    asked = {c: secrets(homes, c, message) for c in clients}
    return np.stack([
        mask_values(values[c], c, clients, lambda low, high, n, c=c: asked[c].mask(ASKED, clients, low, high, n))
        for c in clients
    ])  # fmt: skip


def test_masks_cancel_in_the_sum_of_all_sites_alone(homes):
    values = np.array([[5, 0, 2], [1, 7, 0], [3, 1, 1]])
    rows = sent(homes, values, [0, 1, 2], request(homes))
    assert unmasked_sum(rows).tolist() == [9, 8, 3]
    assert rows.min() > 1000
    assert unmasked_sum(rows[1:]).tolist() != [4, 8, 1]
    ours = [SIMULATED.mask(ASKED, [0, 1, 2], 0, 1, 3), SIMULATED.mask(ASKED, [0, 1, 2], 0, 2, 3)]
    assert (rows[0] - ours[0] - ours[1]).min() > 1000  # what the run's seed would undo


def test_another_request_has_other_masks_and_the_same_one_the_same(homes):
    first, again = request(homes), request(homes, base=7)  # bookkeeping of one site's state
    assert request_digest(first) == request_digest(again)
    pairs = dict(first.content.config_records["x.pairs"])
    resigned = request(homes, **{"x.pairs": ConfigRecord({client: key[:70] + "A" for client, key in pairs.items()})})
    assert request_digest(first) == request_digest(resigned)  # a signature that was changed draws no other noise
    others = [request(homes, step=2), request(homes, view=ConfigRecord({"name": "validation"}))]
    others += [request(homes, arrays=array_record({"w": np.full(2, value)})) for value in (0.0, 1e-9)]
    masks = [secrets(homes, 0, m).mask(ASKED, [0, 1, 2], 0, 1, 4) for m in (first, *others)]
    assert len({mask.tobytes() for mask in masks}) == 5
    assert np.array_equal(masks[0], secrets(homes, 1, again).mask(ASKED, [0, 1, 2], 0, 1, 4))


@pytest.mark.parametrize(
    ("clients", "why"),
    [
        ([0], "at least 3 sites"),
        ([0, 1], "at least 3 sites"),
        ([0, 1, 1], "asked to sum over 2 of 3"),
        ([0, 1, 2, 3], "asked to sum over 4 of 3"),
        ([0, 2, 1], "already summed over other sites"),
    ],
)
def test_a_set_of_sites_that_could_be_subtracted_is_refused(homes, clients, why):
    secrets(homes, 0, request(homes)).mask(ASKED, [0, 1, 2], 0, 1, 1)
    with pytest.raises(Shareable, match=why):
        secrets(homes, 0, request(homes, step=2)).mask(ASKED, clients, 0, 1, 1)


def test_other_keys_than_before_are_refused_and_the_audit_log_has_their_digest(homes):
    message = request(homes)
    secrets(homes, 0, message).mask(ASKED, [0, 1, 2], 0, 1, 1)
    [line] = AuditLog(homes[0].file("audit.jsonl")).lines()
    assert line["facts"]["sha256"] == keys_digest([public_key(home, "run") for home in homes])
    for name in ("pair.key", "pair.signed"):
        homes[1].file("state", "runs", "run", name).unlink()
    with pytest.raises(Shareable, match="with other keys"):
        secrets(homes, 0, request(homes)).mask(ASKED, [0, 1, 2], 0, 1, 1)
    homes[0].file("state", "runs", "run", "pair.key").unlink()
    with pytest.raises(Shareable, match="linz's own key was replaced by another"):
        secrets(homes, 0, message).mask(ASKED, [0, 1, 2], 0, 1, 1)


def forged(message, **keys):
    """The request with other run keys, by client id."""
    pairs = dict(message.content.config_records["x.pairs"]) | {client[1:]: key for client, key in keys.items()}
    message.content["x.pairs"] = ConfigRecord(pairs)
    return message


def test_a_run_key_that_its_site_did_not_sign_is_refused_by_one_honest_site(homes, tmp_path):
    """The coordinator swaps va's key for one of its own, or sends one that va signed for another plan or run."""
    own = node_home(tmp_path / "coordinator", "site: va\n")
    write_private(own.file("key"), make_site_key()[0])  # not va's
    key = signed_run_key(own, PLAN.sha, "run")
    theirs = signed_run_key(homes[2], PLAN.sha, "run").split(":")
    swapped = [key, key.split(":")[0], f"{key.split(':')[0]}:{theirs[1]}", "", "zz:zz"]
    va = node_home(tmp_path / "va of elsewhere", "site: va\n")
    swapped += [signed_run_key(va, "0" * 64, "run"), signed_run_key(va, PLAN.sha, "another run")]
    for one in [*swapped, signed_run_key(homes[1], PLAN.sha, "run")]:
        with pytest.raises(Shareable, match="linz was sent a run key of va that va did not sign"):
            secrets(homes, 0, forged(request(homes), c2=one)).mask(ASKED, [0, 1, 2], 0, 1, 1)
    assert not homes[0].file("state", "runs", "run", "peers.json").exists()
    assert secrets(homes, 0, request(homes)).mask(ASKED, [0, 1, 2], 0, 1, 1).size == 1


def test_a_site_that_the_plan_does_not_list_is_in_no_sum(homes, tmp_path):
    invented = node_home(tmp_path / "invented", "site: invented\n")
    message = forged(request(homes), c3=signed_run_key(invented, PLAN.sha, "run"))
    with pytest.raises(Shareable, match="asked to sum over 4 of 3 with 4 keys"):
        secrets(homes, 0, message).mask(ASKED, [0, 1, 2, 3], 0, 3, 1)


def test_one_run_key_for_two_sites_is_refused(homes):
    """Two sites that are one person, who knows their masks: each signs the same key."""
    for home in homes[1:]:
        write_private(home.folder("state", "runs", "run") / "pair.key", b"x" * 32)
    with pytest.raises(Shareable, match="one key for two sites"):
        secrets(homes, 0, request(homes)).mask(ASKED, [0, 1, 2], 0, 1, 1)


def test_keys_are_the_owners_alone(homes):
    public_key(homes[0], "run")
    secrets(homes, 0, request(homes)).normal(ASKED, Stream.UPDATE_NOISE, 1)
    for name in ("pair.key", "noise.key"):
        path = homes[0].file("state", "runs", "run", name)
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(path.read_bytes()) == 32
    assert public_key(homes[0], "run") != public_key(homes[0], "another run")


def test_noise_is_normal_and_nobody_elses(homes):
    one = secrets(homes, 0, request(homes)).normal(ASKED, Stream.UPDATE_NOISE, 20001)
    assert kstest(one, "norm").pvalue > 1e-4
    assert one.shape == (20001,)
    assert np.array_equal(one, secrets(homes, 0, request(homes, base=3)).normal(ASKED, Stream.UPDATE_NOISE, 20001))
    others = [
        secrets(homes, 1, request(homes)).normal(ASKED, Stream.UPDATE_NOISE, 20001),
        secrets(homes, 0, request(homes, step=2)).normal(ASKED, Stream.UPDATE_NOISE, 20001),
        secrets(homes, 0, request(homes)).normal(ASKED, Stream.PRIOR_NOISE, 20001),
        SIMULATED.normal(ASKED, Stream.UPDATE_NOISE, 20001),
    ]
    assert max(abs(np.corrcoef(one, other)[0, 1]) for other in others) < 0.04


def test_a_methods_noise_is_laplace_or_normal_and_nobody_elses(homes):
    def drawn(client, message, stream=Stream.PRIOR_NOISE):
        own = secrets(homes, client, message)
        return own.laplace(ASKED, stream, 20001), own.normals(ASKED, stream, [(20000,), (2, 3)])

    laplace, (many, few) = drawn(0, request(homes))
    assert kstest(laplace, "laplace").pvalue > 0.01
    assert kstest(many, "norm").pvalue > 0.01
    assert few.shape == (2, 3)
    assert np.array_equal(laplace, drawn(0, request(homes, base=3))[0])
    others = [drawn(1, request(homes)), drawn(0, request(homes, step=2)), drawn(0, request(homes), Stream.METHOD)]
    for other_laplace, (other_many, _) in others:
        assert abs(np.corrcoef(laplace, other_laplace)[0, 1]) < 0.05
        assert abs(np.corrcoef(many, other_many)[0, 1]) < 0.05
    assert abs(np.corrcoef(laplace, SIMULATED.laplace(ASKED, Stream.PRIOR_NOISE, 20001))[0, 1]) < 0.05


def test_what_a_site_keeps_of_the_first_sum(homes):
    secrets(homes, 2, request(homes)).mask(ASKED, [0, 1, 2], 0, 2, 1)
    kept = json.loads(homes[2].file("state", "runs", "run", "peers.json").read_text())
    assert kept == {"clients": [0, 1, 2], "keys": [public_key(home, "run") for home in homes]}
