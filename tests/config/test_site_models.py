"""Networks and weights that clients do not share: who has which, what is shared, and what is refused."""

import pytest
from small_runs import config

from fedimb.config.load import config_sha, from_json, row_label, to_json
from fedimb.config.parts import build_model
from fedimb.config.site_models import Layout, arrays_of_kind, kind_configs, kinds_of
from fedimb.errors import ConfigError
from fedimb.models.base import parameters_of

WIDE = "{name: mlp, hidden: [96]}"
DEEP = "{name: mlp, hidden: [48, 32]}"
SHAPE = (10, (8, 8))


def models(kinds: str, given: str, average: str = "kind") -> str:
    return f"clients.models={{kinds: {{{kinds}}}, {given}, average: {average}}}"


def test_sites_and_client_ids_are_given_networks_and_the_rest_train_the_runs_own():
    cfg = config(models(f"wide: {WIDE}, deep: {DEEP}", "at: {north: wide, 4: deep}"))
    assert kinds_of(cfg, 5, lambda: {"north": [0, 2]}) == ("wide", "model", "wide", "model", "deep")
    assert {kind: own.model.get("hidden") for kind, own in kind_configs(cfg).items()} == {
        "model": [48],
        "wide": [96],
        "deep": [48, 32],
    }
    again = from_json(to_json(cfg))
    assert again.clients == cfg.clients
    assert config_sha(again) == config_sha(cfg)


def test_shares_are_drawn_from_the_seed_and_are_of_their_size():
    word = models(f"wide: {WIDE}, deep: {DEEP}", "shares: {wide: 0.3, deep: 0.5}")
    drawn = kinds_of(config(word), 10, dict)
    assert sorted(drawn) == ["deep"] * 5 + ["model"] * 2 + ["wide"] * 3
    assert drawn == kinds_of(config(word), 10, dict) != kinds_of(config(word, "seed=1"), 10, dict)
    assert "model" not in kind_configs(config(models(f"wide: {WIDE}", "shares: {wide: 1.0}")))


def checked(words):
    """What is checked of networks before a run."""
    cfg = config(*words)
    kinds_of(cfg, 5, lambda: {"north": [0]})
    Layout.of(cfg, *SHAPE)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([models(f"wide: {WIDE}", "at: {9: wide}")], "no client or site '9'; give one of north"),
        ([models(f"wide: {WIDE}", "at: {0: wide, north: wide}")], r"this is client 0, as '0' is"),
        ([models(f"wide: {WIDE}", "shares: {wide: 0.05}")], "is nobody: give a larger share"),
        ([models(f"wide: {WIDE}", "at: {1: deep}")], "'deep' is not one"),
        ([models(f"wide: {WIDE}, deep: {DEEP}", "at: {1: deep}")], "a client for every kind; 'wide' has none"),
        ([models(f"model: {WIDE}", "at: {1: model}")], "not 'model' or 'shared'"),
        ([models("wide: {name: mlp, hidde: [96]}", "at: {1: wide}")], "no argument 'hidde'"),
        (["clients.private=[hed]"], r"no trained parameter or buffer of that name.*head\.weight"),
        (["clients.private=['*']"], "leaves nothing of mlp to average"),
        ([models(f"wide: {WIDE}", "at: {1: wide}", "alike")], "no first layers alike"),
    ],
)
def test_what_gives_no_networks_to_train_is_refused(words, says):
    with pytest.raises(ConfigError, match=says):
        checked(words)


KINDS = models(f"deep: {DEEP}", "at: {1: deep}")
ALIKE = models(f"deep: {DEEP}", "at: {1: deep}", "alike")
PRIVATE = "clients.private=[head]"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([KINDS, "strategy=scope"], "strategy 'scope' works with one model that all clients share"),
        ([PRIVATE, "strategy=fednh", "model.head=cosine"], "clients.private leaves none of"),
        ([PRIVATE, "aggregator=krum"], "aggregator 'krum' works on whole updates.*fedavg"),
        ([ALIKE, "aggregator=scaffold"], "aggregator 'scaffold' works on whole updates"),
        ([KINDS, "attack=sign_flip"], "attack 'sign_flip' is on one model"),
        ([PRIVATE, "explanation=integrated_gradients"], "explains one model"),
        ([KINDS, "calibration=la_post", "calibration.la_post.tau=temperature"], "is found for one model"),
        ([KINDS, "loss=balanced_softmax", "prior.provenance=estimated"], "reads the head of one model"),
        ([KINDS, "calibration=la_post"], "'la_post' corrects every model by the class counts of all clients"),
        ([KINDS, "calibration=la_post", "prior.provenance=local"], r"keep heads at their sites too \(clients.private="),
        ([PRIVATE, "calibration=[none,la_post]"], "set prior.provenance=local .*, or use calibration=none"),
        (["clients.private=['*.bias']", "calibration=la_post"], "a head is trained on those of its own site"),
        (["clients.private=['body.*']", "calibration=la_post", "prior.provenance=local"], "has no class counts"),
        ([PRIVATE, "evaluation.temperature=true", "data.validation=0.2"], "the temperature of one model"),
        (
            [PRIVATE, "strategy=herocrystal", "data.public=5", "calibration=la_post", "prior.provenance=local"],
            "teaches its one model on rows of its own",
        ),
        ([PRIVATE, "strategy=fedrep", "loss=balanced_softmax"], "'balanced_softmax'.*set prior.provenance=local"),
        ([KINDS, "loss=balanced_softmax"], "would get the class counts of all clients together"),
        ([KINDS, "clients.max_weight_share=0.5"], "their updates are of different networks"),
        ([KINDS, "privacy.clip=1", "privacy.noise=1", "aggregation_weight=uniform"], "with less noise than stated"),
    ],
)
def test_what_needs_one_model_is_refused_with_the_reason(words, says):
    with pytest.raises(ConfigError, match=says):
        config(*words)


def test_a_prior_of_each_client_or_of_a_head_that_all_share_is_not_refused():
    config(PRIVATE, "loss=balanced_softmax", "prior.provenance=local")
    config(PRIVATE, "calibration=la_post", "prior.provenance=local")
    config(KINDS, PRIVATE, "calibration=la_post", "prior.provenance=local")
    config("clients.private=['body.1.bias']", "calibration=la_post")


def test_an_aggregator_of_whole_updates_serves_networks_that_share_nothing():
    assert config(KINDS, "aggregator=scaffold").aggregator["name"] == "scaffold"


def test_only_first_layers_that_have_the_same_input_are_alike():
    """Both heads end in ten classes, but of other features: what is behind the first difference is not shared."""
    layout = Layout.of(config(ALIKE), *SHAPE)
    assert layout.alike == {"body.1.weight", "body.1.bias"}
    assert layout.groups() == {"shared": ("model", "deep"), "model": ("model",), "deep": ("deep",)}
    own = parameters_of(build_model(layout.configs["deep"], *SHAPE))
    parts = {group: list(layout.part(group, own)) for group in ("shared", "deep")}
    assert parts == {
        "shared": ["body.1.weight", "body.1.bias"],
        "deep": ["body.3.weight", "body.3.bias", "head.weight", "head.bias"],
    }
    named = {f"{group}/{name}": own[name] for group, names in parts.items() for name in names}
    assert arrays_of_kind("deep", named | {"model/head.weight": own["head.weight"]}).keys() == own.keys()


def test_a_private_head_is_not_among_what_is_alike():
    same = models("twin: {name: mlp, hidden: [48]}", "at: {1: twin}", "alike")
    assert Layout.of(config(same, PRIVATE), *SHAPE).alike == {"body.1.weight", "body.1.bias"}


def test_rows_say_what_is_not_shared_and_hashes_of_other_runs_stay():
    assert row_label(config(ALIKE, PRIVATE), "none") == "1_more_networks_alike+private_head"
    assert config_sha(config("clients.models=null", "clients.private=[]")) == config_sha(config())
    assert len({config_sha(config(*words)) for words in ((), (KINDS,), (ALIKE,), (PRIVATE,))}) == 4
