"""The models a site asks beside the global one, and KAFAL's training half, in a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from small_runs import config, launch_in, weights_sha
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from fedimb.clientapp.context import ClientContext
from fedimb.clients import active
from fedimb.clients.active_models import distilled_model, fresh_model, keep_updated, local_model, updated_model
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.data.views import ClientData
from fedimb.errors import ConfigError
from fedimb.seeds import Stream
from fedimb.selection.queries.base import Distillation
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.compensation import Compensation
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

CYCLES = ("engine=inline", "partition=iid", "rounds=4", "clients.count=3", "strategy=active")
ACTIVE = ("strategy.active.cycles=2", "strategy.active.budget=6", "strategy.active.local_epochs=3")


@pytest.fixture
def context(tmp_path):
    """A client with 8 rows of three classes, 6 of them labelled, and a teacher that calls everything class 2."""
    x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    store = Store.build(SourceData(x, np.arange(8) % 3, tuple("abc")), tmp_path / "store", "f")
    data = ClientData(store, np.arange(8), np.zeros(0, np.int64))
    data.set_labels(np.arange(6), np.arange(6) % 3)
    data.set_view("labelled", np.arange(6))
    cfg = config("engine=inline", "local.batch_size=4", "local.lr=0.5")
    made = ClientContext(
        0, 4, 9, data, RecordDict(), SimpleNamespace(parameters=lambda: iter([torch.zeros(1)])), cfg, None,
        training=lambda _: TrainSpec("labelled", 1, 4, "sgd", 0.5, 0.0, 0.0, CrossEntropy(), Shuffle()),
    )  # fmt: skip
    made.model = fresh_model(0, made)
    with torch.no_grad():
        made.model.head.bias.copy_(torch.tensor([0.0, 0.0, 6.0]))
    return made


@torch.no_grad()
def objective(model, context, how):
    x, y = context.data.tensors("labelled")
    model.eval()
    said = log_softmax(context.model.eval()(x) / how.temperature, 1)
    logits = model(x)
    apart = kl_div(log_softmax(logits / how.temperature, 1), said, reduction="batchmean", log_target=True)
    return float((1 - how.share) * cross_entropy(logits, y) + how.share * how.temperature**2 * apart)


def test_a_distilled_model_approaches_the_teacher_and_stops_when_it_no_longer_does(context, monkeypatch):
    how, epochs = Distillation(epochs=60, lr_factor=1.0), []
    original = active_models_train()
    monkeypatch.setattr(
        "fedimb.clients.active_models.train_locally",
        lambda *args, **more: (epochs.append(args[3]), original(*args, **more))[1],
    )
    before = objective(fresh_model(2, context), context, how)
    model = distilled_model(2, context, how)
    assert objective(model, context, how) < 0.2 * before
    x, _ = context.data.tensors("labelled")
    assert (model(x).argmax(1) == 2).all()  # the teacher says so, and weighs nine times what labels do
    assert 5 < len(epochs) <= 60
    assert {spec.steps for spec in epochs} == {2}  # ceil(6 / 4)
    epochs.clear()
    frozen = Distillation(epochs=60, lr_factor=0.0, patience=3)
    distilled_model(2, context, frozen)
    assert len(epochs) == 1 + 3  # the first is the best there is, and three no better follow


def active_models_train():
    from fedimb.training.local import train_locally

    return train_locally


def test_the_learning_rate_of_distillation_is_a_tenth(context, monkeypatch):
    seen = []
    original = active_models_train()
    monkeypatch.setattr(
        "fedimb.clients.active_models.train_locally",
        lambda *args, **more: (seen.append(args[3].lr), original(*args, **more))[1],
    )
    distilled_model(2, context, Distillation(epochs=2))
    assert seen == pytest.approx([0.05, 0.05])


def test_the_local_models_of_a_query_keep_their_momentum_from_epoch_to_epoch(context):
    """As one training by hand, torch's SGD over all epochs: until now its velocity began at 0 in each of them."""
    momentum = TrainSpec("labelled", 1, 4, "sgd", 0.05, 0.9, 1e-5, CrossEntropy(), Shuffle())
    context.training = lambda _: momentum
    x, y = context.data.tensors("labelled")
    by_hand = fresh_model(2, context)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    generator = context.generator(Stream.TRAIN)
    for epoch in range(10):
        optimizer.param_groups[0]["lr"] = 0.005 if epoch >= 7.4 else 0.05
        for rows in torch.randperm(6, generator=generator).split(4):
            optimizer.zero_grad()
            cross_entropy(by_hand(x[rows]), y[rows]).backward()
            optimizer.step()
    model = local_model(2, context, 10, stop=1.1)
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    assert not torch.allclose(model.head.weight, fresh_model(2, context).head.weight, atol=1e-2)


def test_a_clients_last_weights_are_found_again_only_of_the_round_asked_for(context):
    assert updated_model(2, context, 4) is None
    keep_updated(context)
    assert updated_model(2, context, 3) is None
    again = updated_model(2, context, 4)
    for mine, theirs in zip(again.parameters(), context.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with torch.no_grad():
        context.model.head.bias.fill_(torch.nan)
    keep_updated(context)  # diverged: the weights before stay
    assert torch.isfinite(updated_model(2, context, 4).head.bias).all()


@pytest.mark.parametrize("rule", ["kafal", "ifal"])
def test_rules_that_look_at_a_clients_own_last_weights_are_given_them(tmp_path, monkeypatch, rule):
    from fedimb import registry

    seen = []
    kind = registry.get("query", rule).factory
    choose = kind.choose
    monkeypatch.setattr(kind, "choose", lambda self, asked: (seen.append(dict(asked.pool)), choose(self, asked))[1])
    query = "{name: ifal, epochs: 3}" if rule == "ifal" else "{name: kafal}"
    launch_in(tmp_path, *CYCLES, *ACTIVE, f"strategy.active.query={query}")
    assert len(seen) == 3  # clients, in the one cycle that is chosen
    for pool in seen:
        assert set(pool) == {"global", "local", "updated"}
        assert not torch.equal(pool["updated"].logits, pool["global"].logits)
        assert not torch.equal(pool["updated"].logits, pool["local"].logits)


def test_kcfu_trains_by_own_counts_from_the_start_and_is_helped_from_the_second_round(tmp_path, monkeypatch):
    rounds = {}
    original = active.compensated

    def watch(spec, context, floor, distils):
        changed = original(spec, context, floor, distils)
        counts = torch.from_numpy(context.data.counts("labelled")).double().clamp_min(floor)
        assert torch.allclose(changed.loss.shift, counts.log().float())
        terms = [term for term in changed.objectives if isinstance(term, Compensation)]
        assert [len(term.rows) for term in terms] == [len(context.data.rows("pool"))] * distils
        assert changed.steps == spec.steps
        rounds.setdefault(context.round, set()).add(bool(terms))
        return changed

    monkeypatch.setattr(active, "compensated", watch)
    query = "strategy.active.query={name: kafal}"
    plain = launch_in(tmp_path / "plain", *CYCLES, *ACTIVE, query)
    helped = launch_in(tmp_path / "kcfu", *CYCLES, *ACTIVE, query, "strategy.active.kcfu=true")
    assert rounds == {1: {False}, 2: {True}, 3: {False}, 4: {True}}  # two cycles of two rounds, each from fresh weights
    assert helped.labels == plain.labels
    assert weights_sha(helped) != weights_sha(plain)


def test_kcfu_helps_in_every_later_round_where_weights_are_kept(tmp_path, monkeypatch):
    rounds = {}
    original = active.compensated

    def watch(spec, context, floor, distils):
        rounds[context.round] = distils
        return original(spec, context, floor, distils)

    monkeypatch.setattr(active, "compensated", watch)
    on = ("strategy.active.kcfu=true", "strategy.active.restart=false")
    launch_in(tmp_path / "on", *CYCLES, *ACTIVE, *on)
    assert rounds == {1: False, 2: True, 3: True, 4: True}


@pytest.mark.parametrize(
    ("word", "message"),
    [("loss=focal", "set loss=ce, or leave kcfu out"), ("calibration=[none,la_post]", "double correction.*la_post")],
)
@pytest.mark.parametrize("strategy", ["active", "fairfal"])
def test_kcfu_with_another_correction_is_refused_before_the_run(tmp_path, strategy, word, message):
    words = (f"strategy={strategy}", word)
    with pytest.raises(ConfigError, match=f"^refused combination: .*{message}"):
        launch_in(tmp_path, *words, f"strategy.{strategy}.kcfu=true")
    assert not (tmp_path / "runs").exists()
    config(*words)  # without it both are welcome
