"""Study plans: what they cover, and that nothing runs without an approved one."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_plans import node_home, plan_of, run_config

from fedimb import registry
from fedimb.config.load import from_json, to_json
from fedimb.contracts.settings import Settings
from fedimb.deploy.incidents import Shareable
from fedimb.deploy.site import approvals
from fedimb.deploy.study_plan.plan import check_config, mismatch, read_plan
from fedimb.deploy.study_plan.ranges import Range, check_vary, is_fixed
from fedimb.errors import ConfigError
from fedimb.registry.arguments import docs_of
from fedimb.schema import RunConfig


@pytest.fixture
def home(tmp_path):
    return node_home(tmp_path / "st-anna")


def test_a_plan_survives_being_sent(plan):
    again = read_plan(plan.to_json())
    assert again == plan
    assert again.sha == plan.sha
    assert list(again.run_config().strategy) == ["scope", "plain"]  # outermost first
    assert mismatch(again) is None


def test_what_it_says_is_what_its_hash_is_of(plan, config):
    others = [
        plan_of(config, purpose="something else"),
        plan_of(config, tags=["lungs"]),
        plan_of(config, vary={"rounds": Range(low=1, high=9), "seed": Range()}),
        plan_of(config, classes=["gesund", "krank"], minority=["krank"]),
        plan_of(config, expires="2125-01-01T00:00:00Z"),
        plan_of(run_config("strategy=[scope,plain]", "prior.provenance=clear_sum", "local.lr=0.5")),
        plan_of(run_config("strategy=[plain,scope]", "prior.provenance=clear_sum")),
    ]
    assert len({plan.sha, *(other.sha for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rounds": 8}, None),
        ({"seed": 77}, None),
        ({"rounds": 9}, "rounds=9"),
        ({"rounds": 1, "seed": 5}, None),
        ({"aggregation_weight": "uniform"}, "aggregation_weight"),
    ],
)
def test_a_run_is_covered_within_the_ranges_and_nowhere_else(plan, config, changes, key):
    asked = config.model_copy(update=changes)
    if key is None:
        return check_config(plan, asked)
    with pytest.raises(ConfigError, match=f"does not cover {key}"):
        check_config(plan, asked)


def test_another_method_prior_or_learning_rate_needs_another_plan(plan):
    for override, key in (
        ("strategy=plain", "strategy.scope"),
        ("prior.provenance=none", "prior.provenance"),
        ("local.lr=0.7", "local.lr"),
        ("aggregator=fedprox", "aggregator"),
    ):
        asked = run_config(*(["strategy=[scope,plain]"] if "strategy" not in override else []), override)
        with pytest.raises(ConfigError, match=rf"does not cover {key}"):
            check_config(plan, asked)


def test_where_a_run_computes_is_no_matter_of_the_plan(plan):
    asked = run_config("strategy=[scope,plain]", "prior.provenance=clear_sum", "engine=inline", "study=other", "name=x")
    check_config(plan, asked)


@given(value=st.one_of(st.integers(-5, 15), st.floats(-5, 15), st.booleans(), st.text(max_size=3)))
def test_a_range_allows_numbers_between_its_ends(value):
    inside = not isinstance(value, bool | str) and 1 <= value <= 8
    assert Range(low=1, high=8).allows(value) is inside
    assert Range().allows(value)
    assert Range(among=[value]).allows(value)
    assert not Range(among=["xxxx"]).allows(value)


def test_true_is_no_number_one():
    assert not Range(among=[1]).allows(True)
    assert not Range(among=[True]).allows(1)


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ({"clients.count": Range(low=1, high=50)}, "changes what leaves"),
        ({"round": Range(low=1, high=2)}, "Did you mean 'rounds'"),
        ({"prior.provenance": Range(among=["none", "clear_sum"])}, "changes what leaves"),
        ({"model.name": Range()}, "changes what leaves"),
        ({"rounds": Range()}, "rounds=1..200"),
        ({"rounds": Range(low=7, high=9)}, "the plan's own value 5"),
        ({"engine.name": Range()}, "not a setting that may vary"),
    ],
)
def test_ranges_no_site_could_judge(config, vary, says):
    with pytest.raises(ConfigError, match=says):
        check_vary(config, vary)


_SIMULATED = {"participation", "availability", "dropout", "slow", "slow_delay_s", "deadline_s", "min_reply_fraction"}
_MAY_VARY = {
    "clients": _SIMULATED,
    "prior": {"weighting"},
    "evaluation": {"every", "last_k", "bootstrap"},
    "privacy": set(),
}


@pytest.mark.parametrize("section", _MAY_VARY)
def test_each_setting_of_a_section_that_protects_sites_is_fixed_unless_it_is_known_to_protect_nothing(section):
    """Of the schema: a setting that is added is fixed, or somebody has thought about it here."""
    names = set(RunConfig.model_fields[section].annotation.model_fields)
    assert {name for name in names if not is_fixed(f"{section}.{name}")} == _MAY_VARY[section]


_PROTECTS = re.compile(r"(rows|people)\b.* (class|client) needs|people .* in every|differential|privacy budget|noise")


@pytest.mark.parametrize("name", registry.names("contract"))
def test_each_setting_of_a_method_that_reads_like_a_protection_is_fixed(name):
    registry.build("contract", name)
    own = [one for one in Settings.__subclasses__() if one.method == name]
    docs = {key: text for one in own for key, text in docs_of(one).items()}
    protects = [key for key, text in docs.items() if _PROTECTS.search(text)]
    assert [key for key in protects if not is_fixed(f"strategy.{name}.{key}")] == []


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["strategy=oneround"], "strategy.oneround.head"),
        (
            ["strategy=herocrystal", "clients.private=[head]"],
            "strategy.herocrystal.samples",
        ),  # by its contract: with none, no row leaves
        ([], "clients.min_members"),
        ([], "clients.regions"),
        ([], "clients.private"),
        ([], "clients.models"),
    ],
)
def test_a_setting_by_which_something_else_leaves_is_the_plans(words, key):
    with pytest.raises(ConfigError, match="changes what leaves"):
        check_vary(run_config(*words), {key: Range()})


def test_the_floor_of_an_explanation_is_the_plans():
    config = run_config("explanation=integrated_gradients")
    with pytest.raises(ConfigError, match="changes what leaves"):
        check_vary(config, {"explanation.integrated_gradients.floor": Range(low=3, high=20)})


def test_the_table_is_made_again_at_the_site(plan):
    tree = json.loads(plan.to_json())
    tree["leaves"] = [row for row in tree["leaves"] if row["record"] != "x.profile"]
    assert "not what the installed contracts say" in mismatch(read_plan(json.dumps(tree)))
    tree = json.loads(plan.to_json())
    tree["leaves"][0]["content"] = "nothing of importance"
    assert "not what the installed contracts say" in mismatch(read_plan(json.dumps(tree)))
    tree = json.loads(plan.to_json())
    tree["config"]["rounds"] = 7
    assert "not the one it names" in mismatch(read_plan(json.dumps(tree)))
    tree = json.loads(plan.to_json())
    tree["release"]["fedimb"] = "9.9.9"
    assert "it is for fedimb 9.9.9" in mismatch(read_plan(json.dumps(tree)))
    tree = json.loads(plan.to_json())
    tree["vary"]["model.name"] = {"low": None, "high": None, "among": []}
    assert "changes what leaves" in mismatch(read_plan(json.dumps(tree)))


@pytest.mark.parametrize("model", [{"_target_": "antigravity.Nothing"}, {"name": "antigravity.Nothing"}, {}, [], None])
def test_a_model_given_by_its_path_is_not_imported(home, plan, config, model, monkeypatch):
    tree = json.loads(plan.to_json())
    tree["config"] |= {"model": model, "engine": {"name": "inline"}}
    approvals.receive_plan(home, plan.to_json())
    approvals.decide_plan(home, plan.sha, "approved", None)
    imported = []
    monkeypatch.setattr("importlib.import_module", imported.append)
    assert "its configuration is refused" in mismatch(read_plan(json.dumps(tree)))
    with pytest.raises(Shareable, match="st-anna"):
        approvals.require_approval(home, plan.to_json(), json.dumps(tree["config"]))
    assert imported == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("purpose", "", "purpose"),
        ("purpose", "a\x1b[2Jb", "purpose"),
        ("purpose", "a\u202eb", "purpose"),
        ("contacts", [], "contacts"),
        ("expires", "2126-02-30T00:00:00Z", "not a valid time"),
        ("expires", "soon", "expires"),
        ("config_sha", "12", "config_sha"),
        ("format", 3, "format"),
        ("format", 1, "of an earlier release, without the sites' keys"),
        ("coordinator", "ssh-rsa AAAA", "coordinator"),
        ("sites", [], "sites"),
        ("purpse", "a", "Did you mean 'purpose'"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_place(plan, key, value, says):
    tree = json.loads(plan.to_json()) | {key: value}
    with pytest.raises(ConfigError, match=says):
        read_plan(json.dumps(tree))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"' + "x" * (2 << 20) + '"'])
def test_what_is_not_even_json(text):
    with pytest.raises(ConfigError, match="study plan"):
        read_plan(text)


def test_expiry_lies_after_the_beginning(config):
    with pytest.raises(ConfigError, match="later day"):
        plan_of(config, expires="2025-12-31T23:59:59Z")
    with pytest.raises(ConfigError, match="Did you mean 'schwer krank'"):
        plan_of(config, minority=["schwer krnk"])


def test_the_configuration_arrives_as_the_run_will_use_it(plan, config):
    assert to_json(from_json(to_json(plan.run_config()))) == to_json(config)
