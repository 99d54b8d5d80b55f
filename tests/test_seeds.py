import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.seeds import Stream, numpy_rng, seed_int, torch_generator

seeds = st.integers(0, 2**63 - 1)
small = st.integers(0, 2**20)


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from(Stream), small, small)
def test_a_seed_is_63_bits_and_the_same_each_time(run_seed, stream, server_round, client):
    seed = seed_int(run_seed, stream, server_round, client)
    assert 0 <= seed < 2**63
    assert seed == seed_int(run_seed, stream, server_round, client)


def test_neighbouring_seeds_streams_rounds_and_clients_never_collide():
    drawn = {
        seed_int(run_seed, stream, server_round, client)
        for run_seed in range(4)
        for stream in Stream
        for server_round in range(6)
        for client in range(6)
    }
    assert len(drawn) == 4 * len(Stream) * 36


def test_streams_keep_their_numbers():
    # Renumbering changes every published result.
    assert {stream.name: int(stream) for stream in list(Stream)[:14]} == {
        "SPLIT": 0,
        "TAIL": 1,
        "PARTITION": 2,
        "INIT": 3,
        "COHORT": 4,
        "AVAILABILITY": 5,
        "DROPOUT": 6,
        "SLOW": 7,
        "TRAIN": 8,
        "QUERY": 9,
        "METHOD": 10,
        "SOURCE": 11,
        "BOOTSTRAP": 12,
        "VALIDATION": 13,
    }
    assert len({int(stream) for stream in Stream}) == len(Stream)


def test_seeds_are_those_of_numpys_spawn_keys():
    for key in ((8, 0, 0), (8, 3, 5), (4, 1, 0)):
        state = np.random.SeedSequence(42, spawn_key=key).generate_state(2, np.uint32)
        expected = (int(state[0]) | int(state[1]) << 32) >> 1
        assert seed_int(42, Stream(key[0]), *key[1:]) == expected


def test_generators_repeat_and_differ_by_client():
    assert (numpy_rng(1, Stream.QUERY, 2, 3).random(4) == numpy_rng(1, Stream.QUERY, 2, 3).random(4)).all()
    assert (numpy_rng(1, Stream.QUERY, 2, 3).random(4) != numpy_rng(1, Stream.QUERY, 2, 4).random(4)).all()
    first, again, other = (torch_generator(1, Stream.TRAIN, 2, client) for client in (3, 3, 4))
    assert first.initial_seed() == again.initial_seed() == seed_int(1, Stream.TRAIN, 2, 3)
    assert first.initial_seed() != other.initial_seed()


@pytest.mark.parametrize("args", [(-1, Stream.TRAIN), (1, Stream.TRAIN, -1), (1, Stream.TRAIN, 0, -1)])
def test_negative_arguments_are_refused(args):
    with pytest.raises(ValueError, match=r"negative|unsigned"):
        seed_int(*args)
