"""Every method with its defaults as a plain Flower strategy: it trains as its inner strategy does, or says why not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from stock_flower import run_app, same, stock_app

from fedimb import registry
from fedimb.errors import ConfigError, RunFailed
from fedimb.records import array_record, arrays_of
from fedimb.strategies.active import Active
from fedimb.strategies.base import Method
from fedimb.strategies.c2tc import C2tc
from fedimb.strategies.class_incremental import ClassIncremental
from fedimb.strategies.climb import Climb
from fedimb.strategies.coreset import Coreset
from fedimb.strategies.creff import Creff
from fedimb.strategies.fairfal import FairFAL
from fedimb.strategies.feature_select import FeatureSelect
from fedimb.strategies.feddf import FedDF
from fedimb.strategies.fediic import FedIIC
from fedimb.strategies.fedmd import FedMD
from fedimb.strategies.fednh import FedNH
from fedimb.strategies.fedproto import FedProto
from fedimb.strategies.fedrela import FedReLa
from fedimb.strategies.fedrep import FedRep
from fedimb.strategies.fedssg import FedSSG
from fedimb.strategies.fedyoyo import FedYoYo
from fedimb.strategies.greedy_ensemble import GreedyEnsemble
from fedimb.strategies.herocrystal import HeroCrystal
from fedimb.strategies.mahalanobis import Mahalanobis
from fedimb.strategies.oneround import OneRound
from fedimb.strategies.plain import Plain
from fedimb.strategies.public import Public
from fedimb.strategies.rucr import Rucr
from fedimb.strategies.scope import Scope
from fedimb.strategies.two_stage import TwoStage

CLASSES, FEATURES = 3, 4
Arrays = dict[str, np.ndarray]


def counts(site: int) -> np.ndarray:
    """Rows of each class at a site."""
    return np.array([8 + site, 4, 2], np.int32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def active_answers(name: str) -> dict[str, Callable[[int, RecordDict], dict[str, Arrays]]]:
    def choice(site: int, content: RecordDict) -> dict[str, Arrays]:
        rows = int(content.config_records["x.cycle"]["rows"])  # type: ignore[arg-type]
        return {"x.choice": {"asked": ints(rows), "local": ints(0), "distance": np.array([0.5], np.float32)}}

    def collect(site: int, content: RecordDict) -> dict[str, Arrays]:
        labelled = counts(site) * int(content.config_records["x.cycle"]["cycle"])  # type: ignore[arg-type]
        none = np.zeros(CLASSES, np.int32)
        return {
            "x.labelled": {
                "labelled": labelled,
                "pool": ints(40),
                "ready": ints(1),
                "guessed": none,
                "judged": none,
            }
        }

    return {
        f"{name}_start": choice,
        f"{name}_balance": lambda site, content: {"x.balance": {"balance": np.array([0.5], np.float32)}},
        f"{name}_choose": choice,
        f"{name}_collect": collect,
    }


def scope_answers() -> dict[str, Callable[[int, RecordDict], dict[str, Arrays]]]:
    def sums(site: int, content: RecordDict) -> dict[str, Arrays]:
        return {"x.class_sums": {"sums": np.random.default_rng(site).normal(size=(CLASSES, FEATURES)).astype("f4")}}

    def profile(site: int, content: RecordDict) -> dict[str, Arrays]:
        assert arrays_of(content, "x.prototypes")["vectors"].shape == (CLASSES, FEATURES)
        moments = np.random.default_rng(site).uniform(0.1, 1, (2, CLASSES, 3)).astype(np.float32)
        return {"x.profile": {"counts": counts(site), "mean": moments[0], "variance": moments[1]}}

    def prune(site: int, content: RecordDict) -> dict[str, Arrays]:
        assert np.isfinite(arrays_of(content, "x.consensus")["mean"]).all()
        dropped = counts(site) // 4
        return {"x.kept": {"kept": counts(site) - 2 * dropped, "anomalous": dropped, "redundant": dropped}}

    return {"scope_prototypes": sums, "scope_profile": profile, "scope_prune": prune}


def coreset_answers() -> dict[str, Callable[[int, RecordDict], dict[str, Arrays]]]:
    return {
        "coreset_choose": lambda site, content: {
            "x.chosen": {"kept": counts(site) // 2, "held": counts(site), "steps": ints(0)}
        }
    }


def app_answering(answers: dict[str, Callable[[int, RecordDict], dict[str, Arrays]]]) -> ClientApp:
    """A Flower user's ClientApp that trains and answers a method's queries."""
    app = stock_app()

    def register(name: str, answer: Callable[[int, RecordDict], dict[str, Arrays]]) -> None:
        @app.query(name)
        def query(message: Message, context: Context) -> Message:
            found = answer(int(context.node_config["partition-id"]), message.content)
            return Message(RecordDict({key: array_record(arrays) for key, arrays in found.items()}), reply_to=message)

    for name, answer in answers.items():
        register(name, answer)
    return app


@pytest.mark.parametrize(
    ("method", "answers", "rounds", "metrics"),
    [
        (Scope, scope_answers(), 6, {"data/kept_fraction"}),
        (Coreset, coreset_answers(), 2, {"data/kept_fraction", "data/selection_steps"}),
    ],
)
def test_a_coreset_method_trains_as_its_inner_strategy(
    method: type[Method], answers: dict[str, Any], rounds: int, metrics: set[str]
) -> None:
    ours, flowers = (
        run_app(strategy, app_answering(answers), num_rounds=rounds, evaluate_fn=None)
        for strategy in (method(FedAvg()), FedAvg())
    )
    told = ours.train_metrics_clientapp[rounds]
    assert metrics <= set(told)
    for found in ours.train_metrics_clientapp.values():
        for name in metrics & set(found):
            del found[name]
    same(ours, flowers)


@pytest.mark.parametrize("method", [Active, FairFAL])
def test_active_learning_labels_in_each_of_its_cycles(method: type[Active]) -> None:
    active = method(FedAvg())
    cycles = active.settings.cycles
    ours = run_app(active, app_answering(active_answers(active.name)), num_rounds=cycles)
    assert [m["data/cycle"] for m in ours.train_metrics_clientapp.values()] == list(range(1, cycles + 1))
    labelled = [m["data/labelled"] for m in ours.train_metrics_clientapp.values()]
    assert labelled == [labelled[0] * cycle for cycle in range(1, cycles + 1)]
    once = run_app(FedAvg(), num_rounds=1)  # each cycle begins from fresh weights
    assert np.array_equal(ours.arrays["w"].numpy(), once.arrays["w"].numpy())


@pytest.mark.parametrize(
    ("strategy", "rounds", "line"),
    [
        (Scope(FedAvg()), 3, "strategy.scope.warmup=5 uses up all rounds=3: lower it, or run more rounds"),
        (Active(FedAvg()), 3, "strategy.active.cycles=5 does not divide rounds=3"),
        (
            FedSSG(FedAvg()),
            1,
            "strategy=fedssg makes samples at the server: run it with fedimb, not in a plain ServerApp",
        ),
        (
            Public(FedAvg()),
            1,
            "strategy=public needs a server that trains: run it with fedimb, not in a plain ServerApp",
        ),
        (
            C2tc(FedAvg()),
            1,
            "strategy=c2tc needs a server that trains: run it with fedimb, not in a plain ServerApp",
        ),
        (
            FedDF(FedAvg()),
            1,
            "strategy=feddf needs a server that trains: run it with fedimb, not in a plain ServerApp",
        ),
        (
            FedMD(FedAvg()),
            1,
            "strategy=fedmd needs rows at the server: run it with fedimb, not in a plain ServerApp",
        ),
        (
            GreedyEnsemble(FedAvg()),
            1,
            "strategy=greedy_ensemble needs rows at the server: run it with fedimb, not in a plain ServerApp",
        ),
        (
            FeatureSelect(FedAvg()),
            1,
            "strategy=feature_select needs fedimb's own server: run it with fedimb, not in a plain ServerApp",
        ),
        (
            Mahalanobis(FedAvg()),
            1,
            "strategy=mahalanobis needs fedimb's own server: run it with fedimb, not in a plain ServerApp",
        ),
        (
            OneRound(FedAvg()),
            1,
            "strategy=oneround builds a model at the server: run it with fedimb, not in a plain ServerApp",
        ),
        (
            Creff(FedAvg()),
            3,
            "strategy=creff needs fedimb's own server: run it with fedimb, not in a plain ServerApp",
        ),
        (
            Rucr(FedAvg()),
            3,
            "strategy=rucr needs fedimb's own server: run it with fedimb, not in a plain ServerApp",
        ),
    ],
)
def test_what_a_plain_server_app_lacks_is_said_before_a_round(strategy: Strategy, rounds: int, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_app(strategy, num_rounds=rounds)
    assert str(caught.value).startswith(line)


def test_climb_asks_for_losses_and_weighs_the_clients() -> None:
    def loss(site: int, content: RecordDict) -> dict[str, Arrays]:
        return {"x.loss": {"mean": np.array([1.0 + site]), "rows": ints(10).astype(np.int64)}}

    ours = Climb(FedAvg(), phase=1, dual_lr=0.5)
    run_app(ours, app_answering({"climb_loss": loss}), num_rounds=3)
    weights = list(ours.weights.values())
    assert len(weights) == 4
    assert max(weights) > min(weights)


def test_fedyoyo_sends_class_shares_from_effective_numbers() -> None:
    def numbers(site: int, content: RecordDict) -> dict[str, Arrays]:
        return {"x.effective": {"numbers": np.array([9.0, site], np.float32)}}

    ours = FedYoYo(FedAvg())
    run_app(ours, app_answering({"fedyoyo_effective": numbers}), num_rounds=1)
    assert np.asarray(ours.memory["shares"]).tolist() == [1 + 4 * 9, 1 + sum(range(4))]


def test_fedrela_asks_for_new_labels_once() -> None:
    asked = []

    def moved(site: int, content: RecordDict) -> dict[str, Arrays]:
        asked.append(site)
        return {"x.relabelled": {"moved": np.array([[0, 2], [0, 0]])}}

    run_app(FedReLa(FedAvg(), after=0.5), app_answering({"fedrela_relabel": moved}), num_rounds=4)
    assert sorted(asked) == [0, 1, 2, 3]


def test_fediic_says_what_model_it_needs() -> None:
    def losses(site: int, content: RecordDict) -> dict[str, Arrays]:
        return {"x.class_losses": {"sums": np.ones(2, np.float32), "counts": np.array([3, 4])}}

    with pytest.raises(RunFailed, match=r"use model\.head=projected"):
        run_app(FedIIC(FedAvg()), app_answering({"fediic_losses": losses}), num_rounds=1)


def test_fednh_says_what_model_it_needs() -> None:
    with pytest.raises(RunFailed, match=r"use model\.head=prototype"):
        run_app(FedNH(FedAvg()), num_rounds=1)


def test_herocrystal_says_that_it_needs_a_server_that_trains() -> None:
    with pytest.raises(ConfigError, match="needs a server that trains: run it with fedimb"):
        run_app(HeroCrystal(FedAvg()), num_rounds=1)


def test_class_incremental_says_that_it_needs_to_know_the_phases() -> None:
    with pytest.raises(ConfigError, match="which class appears when: run it with fedimb"):
        run_app(ClassIncremental(FedAvg()), num_rounds=1)


def test_no_method_is_left_out() -> None:
    known = {Scope, Coreset, Active, FairFAL, FedSSG, Public, OneRound, Plain, Climb, Creff, FedNH}
    known |= {FedDF, FedMD, GreedyEnsemble, TwoStage}
    known |= {C2tc, ClassIncremental, FeatureSelect, FedIIC, FedProto, FedReLa, FedRep, FedYoYo, HeroCrystal}
    known |= {Mahalanobis, Rucr}
    own = [registry.get("strategy", name).factory for name in registry.names("strategy")]
    assert known == {factory for factory in own if factory.__module__.startswith("fedimb.strategies.")}
