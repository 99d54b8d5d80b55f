"""Two methods in one run, one around the other: which orders run, and what the clients then train on."""

from itertools import permutations

import numpy as np
import pytest
from small_runs import launch_in, words_of_methods

from fedimb import registry
from fedimb.annotation.base import Answers
from fedimb.clientapp.local_training import LocalTraining
from fedimb.clients import active
from fedimb.config.combinations import Combination, refusal
from fedimb.errors import ConfigError

METHODS = registry.names("strategy")
ROLES = ("asks_for_labels", "reads_labels", "chooses_rows", "chooses_around")


def role(name):
    """What a method declares that decides with whom, and in which order, it goes."""
    flags = registry.flags("strategy", name)
    return tuple(flag for flag in ROLES if flags.get(flag))


def allowed(outer, inner):
    parts = tuple(registry.get("strategy", name) for name in (outer, inner))
    return refusal(Combination(parts)) is None


PAIRS = [pair for pair in permutations(METHODS, 2) if allowed(*pair)]
PRIVATE = {name for name in METHODS if registry.flags("strategy", name).get("needs_private")}
OTHERS = {*PRIVATE, "plain", "scope"}  # with private parts every other method is refused by the same rule
REFUSED = [p for p in permutations(METHODS, 2) if not allowed(*p) and (not PRIVATE & {*p} or {*p} <= OTHERS)]
BY_ROLE = list({(role(a), role(b)): (a, b) for a, b in reversed(PAIRS)}.values())


def covering(pairs):
    """Of these pairs as many as it takes to have every role outside and inside once."""
    found, seen = [], set()
    for outer, inner in pairs:
        own = {("outer", role(outer)), ("inner", role(inner))}
        if not own <= seen:
            found.append((outer, inner))
            seen |= own
    return found


def reason(pair):
    """Why a pair is refused, whoever it is."""
    parts = tuple(registry.get("strategy", name) for name in pair)
    text = str(refusal(Combination(parts)))
    return tuple(word for word in text.split() if not any(name in word for name in METHODS))


FAST = covering(BY_ROLE)
BY_REASON = list({reason(pair): pair for pair in reversed(REFUSED)}.values())


@pytest.fixture
def trained(monkeypatch):
    """What every client trained on, in the order trained: (client, data, spec)."""
    seen = []
    prepare = LocalTraining.prepare

    def recorded(self, context, evaluate):
        prepared = prepare(self, context, evaluate)
        data = context.data
        rows = {view: data.rows(view) for view in ("train", "labelled", "coreset", "trained_on") if data.has(view)}
        extra = 0 if prepared.spec.extra is None else len(prepared.spec.extra[1])
        seen.append((context.client, rows, prepared.work.y.clone(), extra, prepared.spec.steps))
        return prepared

    monkeypatch.setattr(LocalTraining, "prepare", recorded)
    return seen


@pytest.mark.parametrize(("outer", "inner"), FAST)
def test_every_role_runs_outside_and_inside(tmp_path, outer, inner):
    assert launch_in(tmp_path, *words_of_methods(outer, inner), "clients.count=3").rows


@pytest.mark.slow
@pytest.mark.parametrize(("outer", "inner"), [pair for pair in PAIRS if pair not in FAST])
def test_every_allowed_pair_runs(tmp_path, outer, inner):
    assert launch_in(tmp_path, *words_of_methods(outer, inner)).rows


@pytest.mark.parametrize(
    ("outer", "inner"), [*BY_REASON, *(pytest.param(*p, marks=pytest.mark.slow) for p in REFUSED if p not in BY_REASON)]
)
def test_the_others_are_refused_before_any_work(tmp_path, outer, inner):
    with pytest.raises(ConfigError, match="refused combination") as caught:
        launch_in(tmp_path, *words_of_methods(outer, inner))
    assert "\n" not in str(caught.value)
    if allowed(inner, outer):
        assert f"use strategy=[{inner},{outer}]" in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("outer", ["active", "fairfal"])
@pytest.mark.parametrize("inner", ["coreset", "scope"])
def test_a_coreset_is_chosen_within_what_is_labelled(tmp_path, trained, outer, inner):
    launch_in(tmp_path, *words_of_methods(outer, inner))
    sizes = {}
    for client, rows, y, _, _ in trained:
        if "coreset" in rows:
            assert set(rows["coreset"]) <= set(rows["labelled"]) < set(rows["train"])
            np.testing.assert_array_equal(rows["trained_on"], rows["coreset"])
            sizes.setdefault(client, []).append((len(rows["labelled"]), len(rows["coreset"])))
        else:  # SCOPE's warm-up, in both cycles
            np.testing.assert_array_equal(rows["trained_on"], rows["labelled"])
        assert (y >= 0).all()
        assert len(y) == len(rows["trained_on"])
    warmups = sum("coreset" not in rows for _, rows, *_ in trained)
    assert warmups == (10 if inner == "scope" else 0)
    assert len(sizes) == 5
    assert all(first[0] == 4 and last[0] == 8 for first, *_, last in sizes.values())  # chosen anew in the second cycle
    if inner == "coreset":
        assert {size for found in sizes.values() for size in found} == {(4, 2), (8, 4)}


BESIDE = ("strategy.fairfal.budget=10", "partition=iid")


@pytest.mark.parametrize("made", ["generator", "smote", "public"])
def test_synthetic_rows_stand_beside_labelled_ones(tmp_path, trained, made):
    launch_in(tmp_path, *words_of_methods("fairfal", "fedssg"), *BESIDE, f"strategy.fedssg.made={made}")
    for _, rows, y, extra, _ in trained:
        np.testing.assert_array_equal(rows["trained_on"], rows["labelled"])
        assert len(rows["labelled"]) in (10, 20)
        assert len(y) == len(rows["labelled"]) + extra
        assert (y >= 0).all()
    assert any(extra for *_, extra, _ in trained)


def test_the_prior_counts_labelled_and_synthetic_rows(tmp_path, trained):
    made = ("strategy.fedssg.made=oversample", "calibration=la_post")
    result = launch_in(tmp_path, *words_of_methods("fairfal", "fedssg"), *BESIDE, *made)
    last = trained[-5:]
    real, extra = sum(len(rows["labelled"]) for _, rows, *_ in last), sum(extra for *_, extra, _ in last)
    assert extra
    assert float(np.sum(result.prior_counts)) == pytest.approx(real + 0.5 * extra)


def test_three_methods_choose_in_every_cycle_anew(tmp_path, trained):
    three = words_of_methods("active", "coreset", "scope")
    launch_in(tmp_path, *three, "strategy.coreset.match=inner")
    for _, rows, *_ in trained:
        assert set(rows["trained_on"]) <= set(rows["labelled"])


def test_steps_are_those_of_what_is_labelled_unless_the_coreset_says_otherwise(tmp_path, trained):
    small = [*words_of_methods("active", "coreset"), "local.batch_size=2"]
    launch_in(tmp_path, *small)
    equal = [(len(rows["labelled"]), steps) for _, rows, _, _, steps in trained]
    trained.clear()
    launch_in(tmp_path, *small, "strategy.coreset.steps=native")
    native = [(len(rows["labelled"]), steps) for _, rows, _, _, steps in trained]
    assert set(equal) == {(4, 2), (8, 4)}
    assert set(native) == {(4, 1), (8, 2)}


FEDCS, EL2N = "strategy.coreset.rule={name: fedcs}", "strategy.coreset.rule={name: el2n}"


@pytest.mark.parametrize(
    ("inner", "more"),
    [("coreset", ()), ("coreset", (FEDCS,)), ("coreset", (EL2N,)), ("scope", ()), ("fedssg", ()), ("public", ())],
)
def test_a_client_without_a_label_takes_part_and_trains_on_nothing_real(tmp_path, trained, monkeypatch, inner, more):
    real = active.open_oracle

    def unjudged(settings, context):
        """Client 0's reader cannot judge a single row."""
        oracle = real(settings, context)
        if context.client == 0:
            collect = oracle.collect
            oracle.collect = lambda cycle: Answers(*np.zeros((2, 0), np.int64), collect(cycle).rows)
        return oracle

    monkeypatch.setattr(active, "open_oracle", unjudged)
    launch_in(tmp_path, *words_of_methods("active", inner), *more, "clients.count=3")
    empty = [(rows, y, extra) for _, rows, y, extra, _ in trained if not len(rows["labelled"])]
    assert len(empty) == 4
    for rows, y, extra in empty:
        assert len(rows["trained_on"]) == 0
        assert len(y) == extra


@pytest.mark.parametrize("inner", ["scope", "coreset"])
def test_a_warm_up_that_fills_a_cycle_is_refused_before_any_work(tmp_path, inner):
    with pytest.raises(ConfigError, match=f"strategy.{inner}.warmup=2 uses up all rounds=2"):
        launch_in(tmp_path, *words_of_methods("active", inner), f"strategy.{inner}.warmup=2")
    assert not (tmp_path / "runs").exists()


def test_a_warm_up_comes_in_every_cycle_and_none_lasts_longer(tmp_path):
    result = launch_in(tmp_path, *words_of_methods("active", "coreset"), "strategy.coreset.warmup=1")
    lines = (result.folder / "journal.jsonl").read_text().splitlines()
    assert sum('"name": "Rounds(1)"' in line and '"start"' in line for line in lines) == 4
