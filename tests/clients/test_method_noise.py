"""Noise of a method comes from the site's secrets: the run's seed, which the coordinator has, would undo it."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import RecordDict
from small_runs import config

from fedimb.clientapp.context import ClientContext
from fedimb.clients.fedssg import FedSSGClient
from fedimb.clients.scope import ScopeClient
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.data.views import ClientData
from fedimb.privacy.secrets import SIMULATED
from fedimb.records import array_record, arrays_of
from fedimb.seeds import Stream, seed_int

Y = np.repeat(np.arange(3), (9, 6, 5))


class NoNoise:
    """Secrets of a site whose draws are all zero: what is left in a reply is noise from elsewhere."""

    def normals(self, asked, stream, shapes):
        return [np.zeros(shape) for shape in shapes]

    def laplace(self, asked, stream, count):
        return np.zeros(count)


@pytest.fixture
def context(tmp_path):
    def made(secrets):
        x = np.random.default_rng(0).standard_normal((len(Y), 4)).astype(np.float32)
        store = Store.build(SourceData(x, Y, tuple("abc")), tmp_path / "store", "f")
        data = ClientData(store, np.arange(len(Y)), np.zeros(0, np.int64))
        about = config("engine=inline", "seed=7")
        return ClientContext(1, 4, 9, data, RecordDict(), SimpleNamespace(), about, None, secrets=secrets)

    return made


def coverage(context):
    reply = FedSSGClient(epsilon=0.1).query("fedssg_coverage", RecordDict(), context)
    return arrays_of(reply, "x.coverage")["counts"]


def profile(context):
    vectors = np.eye(3, 4, dtype=np.float32)
    asked = RecordDict({"x.prototypes": array_record({"vectors": vectors})})
    client = ScopeClient(sigma=5.0, encoder={"name": "pca", "dims": 4})
    return arrays_of(client.query("scope_profile", asked, context), "x.profile")["counts"]


@pytest.mark.parametrize("ask", [coverage, profile])
def test_a_sites_noise_is_drawn_from_its_secrets_alone(context, ask):
    assert ask(context(NoNoise())).ravel().tolist() == [9, 6, 5]
    assert ask(context(SIMULATED)).ravel().tolist() != [9, 6, 5]


def test_in_a_simulation_it_is_drawn_from_the_runs_seed(context):
    rng = np.random.default_rng(seed_int(7, Stream.PRIOR_NOISE, 4, 1))
    exact = np.array([[9], [6], [5]])
    noisy = np.maximum(exact + np.rint(rng.laplace(0.0, 10.0, (3, 1))), 0)
    np.testing.assert_array_equal(coverage(context(SIMULATED)), noisy)
