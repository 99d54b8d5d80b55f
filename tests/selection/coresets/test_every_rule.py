"""What every registered coreset rule must keep to. A rule added later is tested unasked."""

from dataclasses import fields, replace
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.errors import ConfigError, DataError
from fedimb.selection.coresets.base import Candidates

# Rare, one row, absent; two classes; one class only; one row in all.
COUNTS = {"tail": [40, 6, 1, 0], "two": [9, 3], "one_class": [0, 7, 0], "one_row": [0, 0, 1]}
CHOOSING = [name for name in registry.names("coreset") if not registry.flags("coreset", name).get("keeps_all")]
BY_ROW = ("embeddings", "features", "logits", "history")

every_rule = pytest.mark.parametrize("name", CHOOSING)
every_count = pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())


def rule(name):
    args = yaml.safe_load((files("fedimb.configs") / "coreset" / f"{name}.yaml").read_text())
    return registry.build("coreset", args.pop("name"), **args)


def candidates(counts, seed=0, identical=False):
    generator = torch.Generator().manual_seed(seed)
    classes, n = len(counts), sum(counts)
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    labels = labels[torch.randperm(n, generator=generator)]
    features = torch.randn(n, 6, generator=generator)
    embeddings = torch.nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1)
    logits, history = torch.randn(n, classes, generator=generator), torch.randn(4, n, classes, generator=generator)
    if identical:
        features, embeddings, logits, history = (
            torch.ones_like(features),
            torch.nn.functional.normalize(torch.ones_like(embeddings), dim=1),
            torch.zeros_like(logits),
            torch.zeros_like(history),
        )
    centres = torch.randn(classes, 6, generator=generator)
    centres[torch.tensor(counts) == 0] = torch.nan
    total = 3.0 * torch.tensor(counts, dtype=torch.float64) + 5
    return Candidates(labels, classes, generator, embeddings, features, logits, history.softmax(2), centres, total)


def select(name, given_, keep, per_class=None, seed=1):
    seeded = replace(given_, generator=torch.Generator().manual_seed(seed))
    return rule(name).select(seeded, keep, per_class)


def check(chosen, n, keep):
    assert chosen.dtype == torch.int64
    assert chosen.shape == (keep,)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert keep == 0 or 0 <= int(chosen[0]) <= int(chosen[-1]) < n


@every_rule
@every_count
@pytest.mark.parametrize("identical", [False, True])
def test_exactly_as_many_rows_as_asked(name, counts, identical):
    given_, n = candidates(counts, identical=identical), sum(counts)
    for keep in {0, min(1, n), n // 3, n // 2, max(0, n - 1), n}:
        check(select(name, given_, keep), n, keep)


@every_rule
@every_count
@pytest.mark.parametrize("identical", [False, True])
def test_exactly_as_many_of_each_class_as_asked(name, counts, identical):
    given_ = candidates(counts, identical=identical)
    for part in (0, 0.4, 0.7, 1):
        per_class = (torch.tensor(counts) * part).ceil().long()
        chosen = select(name, given_, int(per_class.sum()), per_class)
        check(chosen, sum(counts), int(per_class.sum()))
        assert torch.equal(torch.bincount(given_.labels[chosen], minlength=len(counts)), per_class)


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(0, 14), min_size=2, max_size=4), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_any_client_any_budget(counts, share, seed):
    given_, keep = candidates(counts, seed), round(share * sum(counts))
    for name in CHOOSING:
        check(select(name, given_, keep), sum(counts), keep)


@every_rule
def test_a_seed_repeats_no_other_randomness_is_used_and_inputs_stay_as_they_were(name):
    given_ = candidates(COUNTS["tail"])
    before = [value.clone() for value in vars(given_).values() if isinstance(value, torch.Tensor)]
    torch.manual_seed(5)
    np.random.seed(5)
    state, legacy = torch.get_rng_state(), np.random.get_state()
    one = select(name, given_, 20)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(legacy[1], np.random.get_state()[1])
    torch.manual_seed(6)
    assert torch.equal(one, select(name, given_, 20))
    after = [value for value in vars(given_).values() if isinstance(value, torch.Tensor)]
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(before, after, strict=True))


@every_rule
def test_a_rule_reads_what_it_says_it_needs_and_no_more(name):
    given_, needs = candidates(COUNTS["tail"]), rule(name).needs
    optional = {f.name for f in fields(Candidates) if f.default is None}
    assert needs <= optional
    bare = replace(given_, **dict.fromkeys(optional - needs))
    assert torch.equal(select(name, bare, 20), select(name, given_, 20))
    for field in needs:
        with pytest.raises(DataError, match=field):
            select(name, replace(given_, **{field: None}), 20)


@every_rule
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused_by_name(name, value):
    given_ = candidates(COUNTS["tail"])
    for field in rule(name).needs & set(BY_ROW):
        broken = getattr(given_, field).clone()
        broken[..., 11, 0] = value
        with pytest.raises(DataError, match=rf"{field} of 1 of 47 rows are NaN or infinite, first row 11"):
            select(name, replace(given_, **{field: broken}), 20)


@every_rule
def test_budgets_that_cannot_be_met_are_refused(name):
    given_ = candidates(COUNTS["tail"])
    with pytest.raises(DataError, match="cannot keep 48 of 47"):
        select(name, given_, 48)
    with pytest.raises(DataError, match="summing to 20"):
        select(name, given_, 20, torch.tensor([10, 5, 1, 0]))
    with pytest.raises(DataError, match="cannot keep 2 rows of class 2: the client has 1"):
        select(name, given_, 12, torch.tensor([10, 0, 2, 0]))
    with pytest.raises(DataError, match="labels run"):
        select(name, replace(given_, n_classes=2), 20)
    if needs := rule(name).needs & set(BY_ROW):
        field = min(needs)
        short = {field: getattr(given_, field)[..., :5, :]}
        with pytest.raises(DataError, match=f"{field} of shape"):
            select(name, replace(given_, **short), 20)


def test_keeping_all_keeps_all_and_nothing_less():
    given_ = candidates(COUNTS["tail"])
    assert select("full", given_, 47).tolist() == list(range(47))
    with pytest.raises(ConfigError, match="asked for 20 of 47"):
        select("full", given_, 20)


def test_every_rule_has_its_settings_page():
    pages = {path.name.removesuffix(".yaml") for path in (files("fedimb.configs") / "coreset").iterdir()}
    assert pages == set(registry.names("coreset"))
