"""What every registered query rule must keep to. A rule added later is tested unasked."""

from dataclasses import replace
from importlib.resources import files

import pytest
import torch
import yaml

from fedimb import registry
from fedimb.errors import DataError
from fedimb.selection.queries.base import Seen

# Rows of each class in the pool and labelled: one row, two classes, nothing labelled, a class never labelled and one
# that is nowhere, one labelled class, one class in all, fewer rows asked than classes.
CLIENTS = {
    "tail": ([60, 20, 6, 2], [12, 4, 2, 1], 16),
    "one_row": ([0, 1, 0], [1, 0, 2], 1),
    "one_row_no_labels": ([1, 0], [0, 0], 1),
    "two_classes": ([9, 3], [2, 1], 5),
    "no_labels": ([30, 5, 2], [0, 0, 0], 9),
    "never_labelled": ([20, 8, 4, 0], [5, 3, 0, 0], 10),
    "one_labelled_class": ([10, 10, 10], [0, 4, 0], 12),
    "one_class_in_all": ([15, 0, 0], [3, 0, 0], 6),
    "fewer_than_classes": ([9, 7, 5, 4, 3, 2, 2, 1], [4, 3, 2, 1, 1, 1, 0, 0], 3),
    "all_of_it": ([7, 4, 2], [2, 1, 1], 13),
    "more_than_all": ([7, 4, 2], [2, 1, 1], 40),
    "nothing_asked": ([7, 4, 2], [2, 1, 1], 0),
    "empty_pool": ([0, 0, 0], [2, 1, 1], 4),
}

every_rule = pytest.mark.parametrize("name", registry.names("query"))
every_client = pytest.mark.parametrize("case", CLIENTS.values(), ids=CLIENTS.keys())
LONG = {"gcnal": {"steps": 5, "hidden": 8}}  # trains: fewer steps keep the same contract


def settings_of(name):
    args = yaml.safe_load((files("fedimb.configs") / "query" / f"{name}.yaml").read_text())
    assert args.pop("name") == name
    return args


def rule(name):
    return registry.build("query", name, **(settings_of(name) | LONG.get(name, {})))


def keeps_to_it(positions, asked):
    count = min(asked.budget, asked.size)
    assert positions.dtype == torch.int64
    assert positions.shape == (count,)
    assert len(set(positions.tolist())) == count
    assert count == 0 or 0 <= int(positions.min()) <= int(positions.max()) < asked.size


def tensors(asked):
    views = [asked.pool, asked.labelled]
    parts = [t for view in views for one in view.values() for t in (one.features, one.logits)]
    return [asked.labels, asked.hidden, *parts]


@every_rule
def test_settings_are_the_constructors_own_defaults(name):
    defaults = {key: p.default for key, p in registry.parameters("query", name).items()}
    assert settings_of(name) == defaults


@every_rule
@every_client
@pytest.mark.parametrize("which", ["global", "local"])
def test_distinct_positions_as_many_as_asked_that_a_seed_repeats(name, case, which, client):
    asked = client(*case, which=which)
    before = [t.clone() for t in tensors(asked)]
    random_state = torch.random.get_rng_state()
    positions = rule(name).select(asked)
    keeps_to_it(positions, asked)
    assert torch.equal(positions, rule(name).select(client(*case, which=which)))
    assert torch.equal(random_state, torch.random.get_rng_state()), "drew from torch's global generator"
    assert all(torch.equal(a, b) for a, b in zip(tensors(asked), before, strict=True)), "changed its input"
    for value in asked.notes.values():
        assert isinstance(value, float) or value.shape == (asked.n_classes,)


@every_rule
@pytest.mark.parametrize("fill", [0.0, 0.3, -2.0])
@pytest.mark.parametrize("budget", [1, 7, 12])
def test_rows_that_are_all_alike(name, fill, budget, client):
    asked = client([8, 3, 1], [2, 1, 0], budget)
    alike = {w: Seen(torch.full((12, 8), fill), torch.full((12, 3), fill)) for w in ("global", "local")}
    labelled = {w: Seen(torch.full((3, 8), fill), torch.full((3, 3), fill)) for w in ("global", "local")}
    keeps_to_it(rule(name).select(replace(asked, pool=alike, labelled=labelled)), asked)


@every_rule
def test_only_an_oracle_sees_hidden_labels(name, client):
    case = CLIENTS["tail"]
    other = client(*case).hidden.flip(0)
    positions = [rule(name).select(client(*case, hidden=hidden)) for hidden in (client(*case).hidden, other)]
    if registry.get("query", name).factory.oracle:
        assert not torch.equal(*positions)
        with pytest.raises(ValueError, match="hidden labels of all 88"):
            rule(name).select(client(*case, hidden=None))
    else:
        assert torch.equal(*positions)
        assert torch.equal(positions[0], rule(name).select(client(*case, hidden=None)))


@every_rule
@pytest.mark.parametrize("which", ["global", "local"])
def test_it_reads_no_other_model_than_it_says(name, which, client):
    asked = client(*CLIENTS["tail"], which=which)
    named = rule(name).reads(which) or {which}  # a rule that reads none still counts the pool's rows
    few = replace(asked, pool={w: asked.pool[w] for w in named}, labelled={w: asked.labelled[w] for w in named})
    positions = rule(name).select(few)
    assert torch.equal(positions, rule(name).select(client(*CLIENTS["tail"], which=which)))


@every_rule
def test_adaptive_rules_answer_otherwise_when_the_other_model_is_asked_and_the_others_do_not(name, client):
    one, two = (rule(name).select(client(*CLIENTS["tail"], which=which)) for which in ("global", "local"))
    assert torch.equal(one, two) != registry.get("query", name).factory.adaptive


@every_rule
@pytest.mark.parametrize("view", ["pool", "labelled"])
@pytest.mark.parametrize("what", ["features", "logits"])
def test_what_is_not_finite_is_refused_with_its_place(name, view, what, client):
    part = rule(name)
    for model in part.reads("global"):
        asked = client(*CLIENTS["tail"])
        getattr(getattr(asked, view)[model], what)[3, 1] = torch.nan if view == "pool" else torch.inf
        rows = len(getattr(asked, view)[model].logits)
        says = f"{what} of 1 of {rows} {view} rows are not finite under the {model} model, the first at position 3"
        with pytest.raises(DataError, match=says):
            part.select(asked)
