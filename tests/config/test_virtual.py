"""What virtual clients cannot do is refused while the configuration is read."""

import pytest

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.errors import ConfigError

VIRTUAL = ["partition=virtual", "clients.count=100000000", "clients.participation=5e-7"]


def test_a_hundred_million_clients_are_a_configuration_like_any_other():
    assert validate(compose(VIRTUAL)).clients.count == 10**8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clients.participation=1.0"], "asks 100,000,000 of 100,000,000 clients in a round; give a fraction"),
        (["strategy=scope"], "strategy 'scope' may ask every client; use strategy=plain"),
        (["strategy=fedssg", "data.public=3"], "strategy 'fedssg' may ask every client"),
        (["loss=balanced_softmax"], "loss 'balanced_softmax' needs class counts, and prior.provenance=clear_sum asks"),
        (["loss=balanced_softmax", "prior.provenance=secure_sum"], "prior.provenance=secure_sum asks every client"),
        (["data.validation=0.2"], "virtual clients hold no validation rows; set data.validation=0"),
        (["data.labels.annotated={0: [1, 2]}"], "data.labels: virtual clients annotate every class"),
        (
            ["calibration=la_post", "calibration.la_post.tau=temperature", "prior.provenance=oracle"],
            "give tau as a number",
        ),
        (["evaluation.temperature=true"], "evaluation.temperature=true sums a figure of every client"),
        (["attack=label_flip"], "attack=label_flip draws attackers from a list of all clients"),
        (
            ["privacy.noise=1.0", "privacy.clip=1.0", "aggregation_weight=uniform"],
            "privacy.noise: the ledger of what was spent has an entry for each client",
        ),
        (["engine=flower"], "engine=flower starts a node for each client"),
        (["+partition.minority_placement=spread"], "minority_placement moves rows between clients"),
        (["data.split={group: duplicates, clients: true}"], "virtual clients have rows in common"),
        (["data.normalize=pooled"], "data.normalize=pooled is a mean over all clients"),
        (["explanation=lime"], "asks every client; use explanation=none"),
    ],
)
def test_what_needs_every_client_is_refused_with_a_remedy(words, message):
    with pytest.raises(ConfigError, match="partition=virtual") as refused:
        validate(compose([*VIRTUAL, *words]))
    assert message in str(refused.value)


@pytest.mark.parametrize("provenance", ["oracle", "estimated", "local"])
def test_priors_that_ask_nobody_are_allowed(provenance):
    validate(compose([*VIRTUAL, "loss=balanced_softmax", f"prior.provenance={provenance}"]))
