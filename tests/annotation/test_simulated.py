import numpy as np
import pytest

from fedimb.annotation.base import Answers, Oracle
from fedimb.annotation.oracles import check_oracle, open_oracle
from fedimb.clientapp.context import Site
from fedimb.data.views import ClientData
from fedimb.errors import ConfigError, DataError
from fedimb.records import pack, unpack

SIMULATED = {"name": "simulated"}


def rows(*which):
    return np.array(which, dtype=np.int64)


def test_labels_asked_for_are_revealed_by_the_next_message(context):
    context.data.hide_labels()
    open_oracle(SIMULATED, context).ask(rows(9, 3, 4), 1)
    context.state = unpack(pack(context.state))  # as the state store keeps it between messages
    oracle = open_oracle(SIMULATED, context)
    answers = oracle.collect(1)
    assert answers.rows.tolist() == [3, 4, 9]
    assert answers.labels.tolist() == [3, 0, 1]
    assert answers.unjudged.tolist() == []
    assert oracle.revealed == 3


def test_what_is_revealed_goes_into_views_and_nothing_else(context):
    data = context.data
    data.hide_labels()
    oracle = open_oracle(SIMULATED, context)
    oracle.ask(rows(3, 7), 1)
    answers = oracle.collect(1)
    data.set_labels(answers.rows, answers.labels)
    assert data.tensors("train")[1].tolist() == [-1, 3, -1, -1, 3, -1]


def test_accesses_are_counted_over_cycles_and_survive_in_the_state(context):
    oracle = open_oracle(SIMULATED, context)
    oracle.ask(rows(3), 1)
    oracle.collect(1)
    assert oracle.peek(rows(1, 5)).tolist() == [1, 1]
    oracle.ask(rows(4, 9), 2)
    again = open_oracle(SIMULATED, context)
    again.collect(2)
    assert (again.revealed, again.peeked) == (3, 2)


def test_collecting_again_answers_the_same(context):
    oracle = open_oracle(SIMULATED, context)
    oracle.ask(rows(5, 1), 2)
    first, second = oracle.collect(2), oracle.collect(2)
    assert (first.rows.tolist(), first.labels.tolist()) == (second.rows.tolist(), second.labels.tolist())


def test_a_cycle_nobody_asked_in_is_refused(context):
    oracle = open_oracle(SIMULATED, context)
    with pytest.raises(DataError, match="no rows were asked for in cycle 1"):
        oracle.collect(1)
    oracle.ask(rows(3), 1)
    with pytest.raises(DataError, match="cycle 2"):
        oracle.collect(2)


def test_no_rows_get_no_answers(context):
    oracle = open_oracle(SIMULATED, context)
    oracle.ask(rows(), 1)
    answers = oracle.collect(1)
    assert answers.rows.size == answers.labels.size == answers.unjudged.size == 0
    assert answers.rows.dtype == np.int64


def test_rows_of_others_are_not_revealed(context):
    oracle = open_oracle(SIMULATED, context)
    oracle.ask(rows(3, 2), 1)  # 2 is a validation row
    with pytest.raises(DataError, match="row 2"):
        oracle.collect(1)


def test_an_oracle_without_the_truth_cannot_be_peeked_at():
    with pytest.raises(ConfigError, match=r"oracle\.name=simulated"):
        Oracle().peek(rows(1))


@pytest.mark.parametrize(
    ("given", "labels", "unjudged", "says"),
    [(rows(1, 2), rows(0), rows(), "2 rows beside 1"), (rows(1), rows(0), rows(1), "twice")],
)
def test_answers_that_contradict_themselves_are_refused(given, labels, unjudged, says):
    with pytest.raises(DataError, match=says):
        Answers(given, labels, unjudged)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "simulatd"}, "Did you mean 'simulated'"),
        ({}, "no oracle 'None'"),
        ({"name": "simulated", "readers": 2}, "no setting 'readers'"),
    ],
)
def test_settings_are_checked_before_the_run_and_in_it(context, settings, says):
    store = context.data.store
    with pytest.raises(ConfigError, match=says):
        check_oracle(settings, Site("multiclass", store.class_names, store))
    with pytest.raises(ConfigError, match=says):
        open_oracle(settings, context)


def test_several_labels_per_row_are_refused(context):
    with pytest.raises(ConfigError, match="several labels"):
        check_oracle(SIMULATED, Site("multilabel", ("a",), context.data.store))
    check_oracle(SIMULATED, Site("multiclass", ("a",), context.data.store))


def test_a_client_of_one_row_of_one_class_and_one_without_rows(store, context):
    context.data = ClientData(store, rows(6), rows())
    oracle = open_oracle(SIMULATED, context)
    oracle.ask(rows(6), 1)
    assert oracle.collect(1).labels.tolist() == [2]
    empty = ClientData(store, rows(), rows())
    empty.hide_labels()
    assert empty.counts("train").tolist() == [0, 0, 0, 0]
