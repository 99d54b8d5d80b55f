"""What rounds of noise have told, client by client, and against whom."""

import json
import math

import pytest

from fedimb.privacy.gaussian import epsilon_of
from fedimb.privacy.ledger import Ledger, add_round
from fedimb.schema import PrivacyConfig

PRIVACY = PrivacyConfig(clip=1.0, noise=2.0, delta=1e-5)


def after(rounds, ledger):
    spent = {}
    for asked, answered in rounds:
        ledger.add(spent, asked, answered)
    return spent


def test_rounds_of_all_clients_are_one_gaussian_mechanism():
    ledger = Ledger(PRIVACY, 4, 1.0)
    stated = ledger.stated(after([(range(4), 4)] * 9, ledger))
    assert stated.keys() == {"epsilon", "epsilon_server"}
    assert stated["epsilon"] == pytest.approx(epsilon_of(2.0 / 3, 1e-5))
    assert stated["epsilon_server"] == pytest.approx(epsilon_of(2.0 / 3 / 2, 1e-5))  # a quarter of the variance


def test_shares_that_did_not_come_are_missing_from_the_noise():
    ledger = Ledger(PRIVACY, 4, 1.0)
    assert ledger.stated(after([(range(4), 1)], ledger))["epsilon"] == pytest.approx(epsilon_of(1.0, 1e-5))
    nobody = ledger.stated(after([(range(4), 0)], ledger))
    assert nobody["epsilon"] == 0 < nobody["epsilon_server"]


def test_the_client_asked_most_counts_and_sampling_is_stated_apart():
    ledger = Ledger(PRIVACY, 3, 2 / 3)
    stated = ledger.stated(after([([0, 1], 2), ([0, 2], 2), ([0, 1], 2)], ledger))
    assert stated["epsilon"] == pytest.approx(epsilon_of(2.0 / math.sqrt(3), 1e-5))
    assert 0 < stated["epsilon_sampled"] < 1.25 * stated["epsilon"]
    assert ledger.stated({}) == {"epsilon": 0.0, "epsilon_server": 0.0, "epsilon_sampled": 0.0}


def test_its_state_survives_json_and_it_goes_on_from_there():
    ledger = Ledger(PRIVACY, 3, 0.5)
    half = json.loads(json.dumps(after([([0, 1], 2)], ledger)))
    ledger.add(half, [1, 2], 1)
    assert ledger.stated(half) == ledger.stated(after([([0, 1], 2), ([1, 2], 1)], ledger))


def test_metrics_of_a_round():
    told = [{"update_norm": 1.0}, {"update_norm": 5.0}, {"update_norm": 2.0}]
    assert add_round(None, {}, [0, 1, 2], told) == {"privacy/update_norm": 2.0}
    assert add_round(None, {}, [0], [{}]) == {}
    assert set(add_round(Ledger(PRIVACY, 1, 1.0), {}, [0], [{}])) == {"privacy/epsilon", "privacy/epsilon_server"}
