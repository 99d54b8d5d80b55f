"""Queries that pass rows through the model: done for many clients at once, with what each would get alone."""

import numpy as np
import pytest
from flwr.app import RecordDict
from own_method import own_groups
from small_runs import launch_in

from fedimb import registry
from fedimb.clients.base import Client
from fedimb.contracts.base import Contract, Record
from fedimb.records import array_record, to_numpy
from fedimb.serverapp.steps import Query, Rounds
from fedimb.strategies.base import Method
from fedimb.training import forward

PROFILE = Record("x.profile", "arrays", "features and logits of all rows", "individual")
heard: list[list[dict[str, np.ndarray]]] = []


class Profile(Method):
    """One round, then every client's features and logits of its training rows, and another round."""

    def program(self, run):
        yield Rounds(1)
        replies = yield Query("profile_rows", model="global")
        heard.append([to_numpy(reply.content["x.profile"]) for reply in replies])
        yield Rounds(1)


class ProfileClient(Client):
    """Remembers in its state that it was asked: what is opened ahead must still be saved."""

    forwards = {"profile_rows": ("train",)}  # noqa: RUF012

    def query(self, name, content, context):
        features, logits = context.forward("train")
        context.state["asked"] = array_record({"rows": np.array([len(features)])})
        return RecordDict({"x.profile": array_record({"features": features.numpy(), "logits": logits.numpy()})})

    def train_spec(self, spec, context):
        return spec.change(lr=spec.lr / 2) if "asked" in context.state else spec


@pytest.mark.parametrize("trainer", ["loop", "stacked"])
def test_rows_of_all_clients_are_passed_at_once_and_each_gets_what_it_gets_alone(tmp_path, trainer, monkeypatch):
    groups = own_groups("strategy", "profile", "# @package strategy.profile\n{}\n")
    asked = []
    original = forward.forward_many

    def counted(model, inputs):
        asked.append(len(inputs))
        return original(model, inputs)

    monkeypatch.setattr("fedimb.clientapp.runtime.forward_many", counted)
    monkeypatch.setattr("fedimb.training.forward.forward_many", counted)
    heard.clear()
    with registry.isolated():
        registry.register("strategy", "profile")(Profile)
        registry.register("client", "profile")(ProfileClient)
        registry.register("contract", "profile")(Contract("profile", queries={"profile_rows": (PROFILE,)}))
        words = ("engine=inline", f"engine.trainer={trainer}", "strategy=profile", "rounds=2")
        ahead = launch_in(tmp_path / "a", *words, dirs=[groups])
        passed = [n for n in asked if n]
        monkeypatch.setattr(ProfileClient, "forwards", {})
        alone = launch_in(tmp_path / "b", *words, dirs=[groups])
    # Five clients at once, or one by one; the rest are the server's own passes of the test rows, one a round.
    assert passed.count(5) == (1 if trainer == "stacked" else 0)
    assert len(heard[0]) == len(heard[1]) == 5
    for one, other in zip(heard[0], heard[1], strict=True):
        assert one["features"].shape[1] == 48
        np.testing.assert_array_equal(one["features"], other["features"])
        np.testing.assert_array_equal(one["logits"], other["logits"])
    assert ahead.rows[0].final == alone.rows[0].final
    states = [sorted(p.name for p in (run.folder / "clients").rglob("*") if p.is_file()) for run in (ahead, alone)]
    assert states[0] == states[1]
    assert len(states[0]) >= 5
