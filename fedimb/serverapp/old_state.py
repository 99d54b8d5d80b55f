"""Reads the state of methods and aggregators in run folders of fedimb 0.1, which saved any attribute it could."""

from typing import Any

from fedimb.errors import RunFailed
from fedimb.plain import JsonObject, StateDict
from fedimb.records import Arrays, array_record
from fedimb.serverapp.state_dict import own_state, owner_name
from fedimb.serverapp.stock_state import stock_attributes


def state_of_snapshot(owner: object, kinds: JsonObject, arrays: Arrays) -> StateDict:
    """What 0.1 saved for an object, in the form that `fedimb.serverapp.state_dict.load_state` takes.

    Args:
        kinds: attribute -> how it was saved.
        arrays: arrays by attribute, or attribute/key.

    Raises:
        RunFailed: an attribute that is now in its state dict was not saved by 0.1.
    """
    flower = {name: _value(name, kinds[name], arrays) for name in stock_attributes(type(owner)) if name in kinds}
    if (wanted := own_state(owner)) is None:
        return {"flower": flower, "own": None}
    if lost := sorted(wanted.keys() - kinds.keys()):
        raise RunFailed(
            f"{owner_name(owner)}: this run was started with fedimb 0.1, which did not save {lost[0]!r}, so it cannot "
            "be resumed to the result of an uninterrupted run: start a new run"
        )
    return {"flower": flower, "own": {name: _value(name, kinds[name], arrays) for name in wanted}}


def _value(key: str, kind: JsonObject, arrays: Arrays) -> Any:
    match kind["kind"]:
        case "scalar":
            return kind["value"]
        case "array":
            return arrays[key].copy()
        case "number":
            return arrays[key][()]
        case "record":
            return array_record({k: arrays[f"{key}/{k}"] for k in kind["keys"]})
        case "list":
            return [arrays[f"{key}/{k}"].copy() for k in kind["keys"]]
        case _:
            held = {k: (arrays[f"{key}/{k}"], python) for k, python in kind["keys"].items()}
            return {k: value.item() if python else value.copy() for k, (value, python) in held.items()}
