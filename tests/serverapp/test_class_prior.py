"""Class counts of every provenance: what is sent, what the server makes of it, and that a resumed run agrees."""

import json
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import interrupted, only_run
from small_runs import config, launch_in, weights_sha

from fedimb.clientapp import class_prior as client_prior
from fedimb.clientapp.class_prior import answer_query, clipped_counts, noisy_share
from fedimb.clientapp.context import ClientContext
from fedimb.config.parts import prior_label
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.mlp import MLP
from fedimb.privacy.gaussian import sigma_of
from fedimb.privacy.secrets import SIMULATED
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.class_prior import check_prior, gather_prior, head_counts
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.evaluate import Evaluator
from fedimb.serverapp.launch import resume
from fedimb.serverapp.steps import Reply
from fedimb.training.prior import prior_of_head

LOSS = ("engine=inline", "loss=balanced_softmax", "rounds=1")


def client(number, counts, *overrides, step=1):
    def held(view):
        return np.asarray(counts)

    about = {"client": number, "data": SimpleNamespace(counts=held), "class_counts": held}
    made = SimpleNamespace(step=step, config=config(*overrides), secrets=SIMULATED, attack=None, **about)
    made.claimed = partial(ClientContext.claimed, made)
    return made


def federation(counts, patients=None, minority=()):
    rows = [np.arange(sum(c)) for c in counts]
    store = SimpleNamespace(patients=patients, names_patients=patients is not None)
    n_classes = len(counts[0])
    held = np.array(counts)
    about = {"n_classes": n_classes, "input_shape": (4,), "pairs": {}, "task": "multiclass", "regions": ()}
    about |= {
        "class_names": ("a", "b", "c")[:n_classes],
        "minority": minority,
        "unknown_labels": None,
        "virtual": False,
    }
    return SimpleNamespace(train=rows, counts=held, store=store, **about)


def gather(cfg, counts, patients=None, minority=()):
    """Play `gather_prior` with clients that answer as the client runtime does; the counts and the bytes they sent."""
    view = RunContext(rounds=1, n_clients=len(counts), n_classes=len(counts[0]), class_names=(), seed=0)
    program, replies, sent = gather_prior(cfg, federation(counts, patients, minority), view), None, 0
    while True:
        try:
            step = program.send(replies)
        except StopIteration:
            return view, sent
        replies = []
        for number, own in enumerate(counts):
            if sum(own):
                context = client(number, own)
                context.config = cfg
                content = answer_query(step.name, RecordDict(dict(step.content)), context)
                sent += content["x.counts"]["counts"].numpy().nbytes
                replies.append(Reply(number, content))


COUNTS = [[5, 0, 2], [0, 0, 0], [1, 7, 0], [3, 1, 1]]


@pytest.mark.parametrize("provenance", ["clear_sum", "secure_sum", "oracle"])
def test_sums_are_exact_and_a_client_sends_eight_bytes_a_class(provenance):
    view, sent = gather(config(f"prior.provenance={provenance}"), COUNTS)
    assert view.counts.tolist() == [9, 8, 3]
    assert sent == (0 if provenance == "oracle" else 3 * 8 * 3)


@pytest.mark.parametrize("provenance", ["clear_sum", "oracle"])
def test_effective_weighting_is_the_mean_of_the_clients_priors(provenance):
    words = (f"prior.provenance={provenance}", "prior.weighting=effective", "aggregation_weight=uniform")
    view, _ = gather(config(*words), COUNTS)
    expected = np.mean([np.array(c) / sum(c) for c in COUNTS if sum(c)], axis=0) * 20
    np.testing.assert_allclose(view.counts, expected)


@pytest.mark.parametrize("provenance", ["clear_sum", "secure_sum"])
def test_a_minority_without_a_row_at_any_client_ends_the_run_before_its_first_round(provenance):
    cfg, counts = config(f"prior.provenance={provenance}"), [[5, 0, 2], [4, 0, 0], [1, 0, 1]]
    with pytest.raises(RunFailed, match="no client has a training row of b, which is among the minority"):
        gather(cfg, counts, minority=(1, 2))
    assert gather(cfg, counts, minority=(2,))[0].counts.tolist() == [10, 0, 3]


def test_a_second_sum_uses_other_masks():
    content = RecordDict({"view": ConfigRecord({"name": "train", "clients": [0, 1]})})
    one, two = (answer_query("masked_counts", content, client(0, [4, 4], step=step)) for step in (1, 2))
    assert not np.array_equal(one["x.counts"]["counts"].numpy(), two["x.counts"]["counts"].numpy())


def test_a_missing_client_leaves_the_sum_hidden_and_a_resume_asks_all_again(tmp_path, monkeypatch):
    words, original = (*LOSS, "prior.provenance=secure_sum"), client_prior.answer_query

    def broken(name, content, context):
        if context.client == 2:
            raise RuntimeError("gone")
        return original(name, content, context)

    monkeypatch.setattr(client_prior, "answer_query", broken)
    with pytest.raises(RunFailed, match=r"(?s)client 2 sent nothing \(.*gone.*fix that client and resume"):
        launch_in(tmp_path, *words)
    monkeypatch.setattr(client_prior, "answer_query", original)
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    assert weights_sha(resume(folder)) == weights_sha(launch_in(tmp_path / "whole", *words))


@pytest.mark.parametrize(
    ("words", "counts", "why"),
    [
        ("prior.provenance=secure_sum", [[3, 1], [0, 0]], "hides nothing with one client"),
        ("prior.provenance=dp_sum prior.clip=2", COUNTS, r"the source has no patient ids; set prior\.clip=null"),
        ("prior.provenance=estimated model.head=cosine", COUNTS, r"MLP's ignores them \(head: cosine\)"),
    ],
)
def test_a_provenance_that_cannot_work_is_refused_before_the_run(words, counts, why):
    with pytest.raises(ConfigError, match=why):
        check_prior(config(*words.split()), federation(counts))
    for other in ("clear_sum", "dp_sum", "estimated"):
        check_prior(config(f"prior.provenance={other}"), federation(counts))


def test_windows_that_only_belong_together_are_no_patients_to_protect(tmp_path):
    about = {"x": np.zeros((4, 1), np.float32), "y": np.array([0, 1, 0, 1]), "class_names": ("a", "b")}
    own, grouped = np.array([0, 0, 1, 1]), federation(COUNTS)
    config_of = config("prior.provenance=dp_sum", "prior.clip=2")
    grouped.store = Store.build(SourceData(**about, patients=own), tmp_path / "patients", "f")
    check_prior(config_of, grouped)
    grouped.store = Store.build(SourceData(**about, patients=own, units="recordings"), tmp_path / "recordings", "f")
    with pytest.raises(ConfigError, match="the source has no patient ids"):
        check_prior(config_of, grouped)


@pytest.mark.parametrize("clients", [1, 4])
def test_the_noise_of_all_clients_together_is_what_the_promise_takes(clients):
    classes, words = 20000, ("prior.provenance=dp_sum", "prior.epsilon=0.7", "prior.delta=1e-6")
    shares = [client(k, np.full(classes, 3), *words) for k in range(clients)]
    noise = sum(noisy_share(c, "train", clients) for c in shares) - 3 * clients
    sigma = sigma_of(0.7, 1e-6)
    assert abs(noise.std() / sigma - 1) < 5 / math.sqrt(2 * classes)
    assert abs(noise.mean()) < 5 * sigma / math.sqrt(classes)
    again = noisy_share(client(0, np.full(classes, 3), *words, step=2), "train", clients)
    assert abs(np.corrcoef(again, noisy_share(shares[0], "train", clients))[0, 1]) < 0.05


def test_a_noisy_sum_is_near_the_sum_and_never_below_one():
    cfg = config("prior.provenance=dp_sum", "prior.epsilon=2.0")
    counts = [[4000, 0] * 50, [1000, 0] * 50]
    view, sent = gather(cfg, counts)
    assert sent == 2 * 8 * 100
    assert np.all(np.abs(view.counts[::2] - 5000) < 6 * sigma_of(2.0, 1e-5))
    assert view.counts.min() == 1.0
    assert not np.array_equal(view.counts[::2], np.full(50, 5000.0))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=20), st.integers(1, 4))
def test_a_patient_counts_with_at_most_clip_rows(rows, clip):
    patients, labels = np.array(rows).T
    kept, seen = np.zeros(3, int), {}
    for patient, label in rows:
        seen[patient] = seen.get(patient, 0) + 1
        kept[label] += seen[patient] <= clip
    store = SimpleNamespace(patients=patients, y=labels, n_classes=3)
    data = holds(store)
    assert clipped_counts(data, "train", clip).tolist() == kept.tolist()


def holds(store, **more):
    """A client that holds the whole store, whose labels are all known or coarse (3 and above)."""
    primary = torch.from_numpy(np.asarray(store.y))
    return SimpleNamespace(store=store, rows=lambda view: np.arange(len(primary)), primary=lambda view: primary, **more)


def test_a_coarse_label_counts_for_no_class_but_takes_a_patients_place():
    store = SimpleNamespace(patients=np.array([0, 0, 1, 1]), y=np.array([4, 0, 1, 3]), n_classes=3)
    assert clipped_counts(holds(store), "train", 1).tolist() == [0, 1, 0]
    assert clipped_counts(holds(store), "train", 2).tolist() == [1, 1, 0]


def test_patients_are_protected_with_more_noise():
    store = SimpleNamespace(patients=np.zeros(9, int), y=np.zeros(9, int), n_classes=20000)
    context = client(0, [0], "prior.provenance=dp_sum", "prior.clip=4")
    context.data = holds(store)
    noisy = noisy_share(context, "train", 1)
    assert noisy[1:].std() == pytest.approx(4 * sigma_of(1.0, 1e-5), rel=0.05)


@pytest.mark.parametrize("clip", ["null", "2"])
def test_false_counts_are_claimed_with_a_limit_per_patient_too(clip):
    """With ``prior.clip`` an attacker's counts were true ones: the run was called attacked and was not."""
    context = client(0, [0], "prior.provenance=dp_sum", f"prior.clip={clip}", "prior.epsilon=100")
    store = SimpleNamespace(patients=np.arange(6), y=np.array([0, 0, 0, 0, 1, 2]), n_classes=3)
    counts = np.array([4, 1, 1])
    context.data = holds(store, counts=lambda view: counts)
    context.attack = SimpleNamespace(counts=lambda counts: np.array([0, 0, 5 * counts.sum()]))
    np.testing.assert_allclose(noisy_share(context, "train", 1), [0, 0, 30], atol=2)


def test_the_label_tables_group_by_says_what_was_promised():
    assert prior_label(config()) == "train/data/clear_sum"
    label = prior_label(config("prior.provenance=dp_sum", "prior.epsilon=2", "prior.clip=3"))
    assert label == "train/data/dp_sum(epsilon=2, delta=1e-05 per patient of 3 rows)"


@pytest.mark.parametrize("provenance", ["secure_sum", "dp_sum", "estimated", "local"])
def test_effective_weighting_is_refused_where_nobody_sees_each_clients_counts(provenance):
    words = ("loss=balanced_softmax", f"prior.provenance={provenance}")
    with pytest.raises(ConfigError, match=r"set prior\.weighting=data"):
        config(*words, "prior.weighting=effective")
    assert config(*words).prior.provenance == provenance
    assert config(f"prior.provenance={provenance}", "prior.weighting=effective")  # nobody reads the prior


def test_a_weighting_over_clients_is_refused_where_each_head_is_corrected_by_its_own_counts():
    words = ("clients.private=[head]", "calibration=la_post", "prior.provenance=local")
    with pytest.raises(ConfigError, match=r"provenance=local shows the server nothing; set prior\.weighting=data"):
        config(*words, "prior.weighting=effective")
    assert config(*words)


def test_an_estimate_follows_the_norms_of_the_heads_rows():
    weight = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]], np.float32)
    prior = prior_of_head(weight)
    np.testing.assert_allclose(prior, np.exp([5, 2, 0]) / np.exp([5, 2, 0]).sum())
    assert np.isfinite(prior_of_head(1e4 * weight)).all()
    model = MLP(n_classes=3, input_shape=(4,), hidden=[2])
    np.testing.assert_allclose(head_counts(model, 50)({"head.weight": weight}), 50 * prior)
    model.head.requires_grad_(False)
    with pytest.raises(ConfigError, match="row norms of a trained head, and MLP's is fixed"):
        head_counts(model, 50)


def test_runs_with_a_secure_sum_end_as_those_with_a_clear_one_and_pay_the_same(tmp_path):
    clear, secure = (
        launch_in(tmp_path / name, *LOSS, f"prior.provenance={name}") for name in ("clear_sum", "secure_sum")
    )
    assert weights_sha(clear) == weights_sha(secure)
    assert clear.up_bytes == secure.up_bytes
    assert secure.down_bytes > clear.down_bytes  # each is told of the others


def test_a_noisy_sum_reaches_the_clients_and_its_promise_the_table(tmp_path):
    noisy = launch_in(tmp_path / "noisy", *LOSS, "prior.provenance=dp_sum", "prior.epsilon=0.5")
    (row,) = json.loads((noisy.folder / "rows.json").read_text())
    assert row["tags"]["fedimb.prior"] == "train/data/dp_sum(epsilon=0.5, delta=1e-05 per row)"
    assert (row["params"]["prior.epsilon"], row["params"]["prior.delta"]) == (0.5, 1e-5)


def test_an_estimated_prior_is_the_same_after_an_interruption_and_costs_nothing_up(tmp_path):
    words = (*LOSS[:2], "rounds=2", "prior.provenance=estimated")
    whole = launch_in(tmp_path / "whole", *words)
    with interrupted(2):
        launch_in(tmp_path / "cut", *words)
    run = only_run(tmp_path / "cut")
    assert weights_sha(resume(run)) == weights_sha(whole)
    lines = [line["metrics"] for line in RunFolder(whole.folder).metrics()]
    assert [k for k in lines[0] if k.startswith("comm/up_bytes/")] == ["comm/up_bytes/train"]


def test_a_run_killed_before_its_result_estimates_what_its_last_evaluation_did(tmp_path, monkeypatch):
    seen, original = [], Evaluator.__call__

    def listening(self, parameters, buffers, counts, outcome):
        seen.append(counts.copy())
        return original(self, parameters, buffers, counts, outcome)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "__call__", listening)
    with monkeypatch.context() as patch:
        patch.setattr("fedimb.serverapp.launch.write_result", killed)
        with pytest.raises(KeyboardInterrupt):
            launch_in(tmp_path, "engine=inline", "calibration=la_post", "prior.provenance=estimated", "rounds=1")
    (run,) = (tmp_path / "runs" / "default").iterdir()
    resume(run)
    assert len(seen) == 2
    assert np.array_equal(*seen)
    assert np.ptp(seen[0]) > 0.1
