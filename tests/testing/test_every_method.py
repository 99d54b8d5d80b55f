"""Every registered method keeps to its contract: killed after every step, on both engines, with odd clients."""

import pytest

from fedimb import registry
from fedimb.testing import check_method

SMALL = {  # settings that keep a run short; a method added later runs as its YAML says
    "active": {"cycles": 2, "budget": 4, "local_epochs": 2},
    "fairfal": {"cycles": 2, "budget": 4, "local_epochs": 2},
    "fedssg": {"training": {"steps": 2}, "pretrain": 1, "force": True, "run_words": ["data.public=3"]},
    "c2tc": {"min_count": 2, "keep": 0.5, "epochs": 1, "use": "init"},
    "class_incremental": {
        "memory": 4,
        "run_words": ["partition=class_incremental", "partition.rows={name: by_column, column: site}"],
    },
    "creff": {"per_class": 3, "match_steps": 2, "head_epochs": 2, "min_count": 1},
    "fediic": {
        "min_count": 1,
        "steps": 20,
        "run_words": ["model.head=projected", "local.augmentation=[{name: noise}]"],
    },
    "fedrela": {"min_count": 1, "top_percent": 50.0},
    "feature_select": {"min_count": 1, "run_words": ["model=logistic"]},
    "fedyoyo": {"min_count": 1, "strong": {"name": "noise"}, "run_words": ["loss=dla"]},
    "fednh": {"min_count": 1, "run_words": ["model.head=prototype"]},
    "feddf": {"epochs": 2, "run_words": ["data.public=3"]},
    "fedmd": {"min_rows": 1, "run_words": ["data.public=3", "clients.private=['*']"]},
    "fedproto": {"min_count": 1, "run_words": ["clients.private=['*']"]},
    "fedrep": {"run_words": ["clients.private=[head]"]},
    "greedy_ensemble": {"picks": 5, "run_words": ["data.public=3", "clients.private=['*']"]},
    "herocrystal": {"epochs": 2, "run_words": ["data.public=3", "clients.private=[head]"]},
    "mahalanobis": {"min_count": 1, "run_words": ["model.head=gated"]},
    "oneround": {"min_count": 1, "run_words": ["model=logistic"]},
    "public": {"epochs": 1, "run_words": ["data.public=3"]},
    "rucr": {"min_count": 1, "per_class": 5, "head_epochs": 2},
    "scope": {"warmup": 1},
}
LONG = (
    *("active", "c2tc", "class_incremental", "climb", "coreset", "creff", "fairfal", "feature_select", "feddf"),
    *("fediic", "fedmd", "fednh", "fedproto", "fedrela", "fedrep", "fedssg", "fedyoyo", "greedy_ensemble"),
    *("herocrystal", "mahalanobis", "oneround", "public", "rucr", "two_stage"),
)
"""Left to the slow test below, which has every method; one that is added later is in both."""

VARIANTS = {
    "coreset by el2n, native steps": ("coreset", {"rule": {"name": "el2n"}, "epochs": 2, "steps": "native"}),
    "fairfal with KAFAL's training": ("fairfal", {**SMALL["fairfal"], "kcfu": True, "share_prototypes": True}),
    "active trains on": ("active", {**SMALL["active"], "restart": False, "query": {"name": "badge"}}),
    "fedssg averages generators": (
        "fedssg",
        {
            **SMALL["fedssg"],
            "source": "fed_diffusion",
            "rounds": 2,
            "local_steps": 2,
            "gate": "off",
            "audit": {"min_count": 1},
        },
    ),
    "feature_select by weights": ("feature_select", {"rule": "rfe", "steps": 1, "run_words": ["model=logistic"]}),
    "feature_select in the clear": ("feature_select", {**SMALL["feature_select"], "secure": False}),
    "oneround after training": ("oneround", {"use": "post", "min_count": 1}),
    "oneround before training": ("oneround", {"use": "init", "min_count": 1, "run_words": ["model=logistic"]}),
    "oneround by FedCOF": (
        "oneround",
        {"head": "fedcof", "secure": False, "min_count": 1, "run_words": ["model=logistic"]},
    ),
    "public retrains the head": ("public", {**SMALL["public"], "use": "head", "head_epochs": 2}),
    "public describes classes": ("public", {"use": "ccvr", "head_epochs": 2, "per_class": 5}),
    "public is a client": ("public", {**SMALL["public"], "use": "client"}),
}


@pytest.mark.parametrize("name", [name for name in registry.names("strategy") if name not in LONG])
def test_the_contract(name):
    check_method(name, ray=False, **SMALL.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names("strategy"))
def test_the_contract_and_both_engines(name):
    check_method(name, **SMALL.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), VARIANTS.values(), ids=VARIANTS)
def test_the_contract_set_otherwise(name, settings):
    check_method(name, ray=False, **settings)
