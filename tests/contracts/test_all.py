"""What every registered contract must keep to. A contract added later is tested unasked."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest

from fedimb import registry
from fedimb.contracts.base import Contract, Record, Sensitivity, Values, declaration_fault
from fedimb.contracts.platform import AUDIT_HEAD

NAMES = registry.names("contract")


@pytest.mark.parametrize("name", NAMES)
def test_contracts_declare_records_the_door_can_check(name):
    contract = registry.build("contract", name)
    assert isinstance(contract, Contract)
    assert contract.name == name
    assert contract.aggregation_weight in ("view", "real", "original", "uniform")
    for records in (contract.train, *contract.queries.values()):
        assert len({r.key for r in records}) == len(records)
        for record in records:
            assert record.key.startswith("x.") or (name == "platform" and record.key in ("arrays", "metrics"))
            assert record.kind in ("arrays", "metrics", "config")
            assert record.content, "a data-protection officer must be able to read what it holds"
            assert record.sensitivity in get_args(Sensitivity)
            assert record.max_bytes is None or record.max_bytes > 0
            assert record.kind == "arrays" or record.dtypes == ()
            assert [np.dtype(d).name for d in record.dtypes] == list(record.dtypes)
            assert record.values, f"{record.key}: say what its values may be, so that a reply can be checked"
            assert declaration_fault(record) == ""


def test_what_objectives_and_nodes_send_declares_its_values_too():
    flags = [registry.flags("objective", name) for name in registry.names("objective")]
    for record in (AUDIT_HEAD, *(r for one in flags for r in one.get("sends", ()))):
        assert record.values
        assert declaration_fault(record) == ""


def test_a_wrong_declaration_is_named():
    for kind, values, text in (
        ("arrays", Values(high="patients"), "'patients' is not a limit; there are -rows, C-1"),
        ("arrays", Values(text=".*"), "only a record of kind config"),
        ("metrics", Values("C"), "only a record of kind arrays"),
        ("arrays", Values("C x "), "write the shape"),
    ):
        record = Record("x.own", kind, "own", "aggregate", values={"own": values})
        assert text in declaration_fault(record)


@pytest.mark.parametrize("name", NAMES)
def test_query_names_are_identifiers_flower_can_route(name):
    for query in registry.build("contract", name).queries:
        assert query.isidentifier(), query


def test_no_two_contracts_share_a_query_or_a_record_of_train_replies():
    contracts = [registry.build("contract", name) for name in NAMES]
    assert max(Counter(query for c in contracts for query in c.queries).values()) == 1
    platform = {r.key for r in registry.build("contract", "platform").train}
    for contract in contracts:
        if contract.name != "platform":
            assert not platform & {r.key for r in contract.train}


def test_every_method_has_both_halves_and_a_contract():
    assert set(registry.names("strategy")) == set(registry.names("client")) == set(NAMES) - {"platform"}
