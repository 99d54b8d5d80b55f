"""What a run sends through nginx, and whether the deployment's limits let it through.

A reply is a tree of objects, each sent by a call of its own (Flower 1.41, flwr.supercore.inflatable): the message, its
records, an object per array, and the arrays' bytes in pieces of 5 MiB. Before them goes one call with the tree. A call
that nginx refuses for its size is not repeated: the node drops the reply, and the round waits for it in vain. So a plan
whose calls are too large is refused before anybody is asked.
"""

import math
from dataclasses import dataclass
from typing import Any

from fedimb.config.parts import build_model, contracts_of
from fedimb.config.site_models import kind_configs
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.nginx import site_rate
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import ConfigError
from fedimb.models.base import buffers_of
from fedimb.schema import RunConfig

PIECE = 5 * 1024 * 1024
"""Most bytes of an array in one call."""
# Measured on serialized calls, and rounded up: see tests/deploy/coordinator/test_traffic.py.
_CALL, _NAME, _OBJECT = 1024, 150, 90
_OTHER_OBJECTS, _OTHER_CALLS = 20, 10
_PATIENT_S = 30.0


@dataclass(frozen=True)
class Traffic:
    """What one site sends and fetches in a training round.

    Attributes:
        body_bytes: largest body of a call.
        calls: calls, there and back.
    """

    body_bytes: int
    calls: int


def traffic_of(plan: StudyPlan, config: RunConfig) -> Traffic:
    """The traffic of a run under a plan, from its model and the records that its contracts declare.

    Of sites' own networks the largest body, and the most calls.
    """
    found = [_traffic_of(plan, own) for own in kind_configs(config).values()]
    return Traffic(max(one.body_bytes for one in found), max(one.calls for one in found))


def _traffic_of(plan: StudyPlan, config: RunConfig) -> Traffic:
    model = build_model(config, len(plan.classes), tuple(plan.input_shape))
    arrays: dict[str, Any] = {**dict(model.named_parameters()), **buffers_of(model)}  # tensors and arrays have nbytes
    records = [r for contract in contracts_of(config) for r in (*contract.train, *sum(contract.queries.values(), ()))]
    likewise = 1 + sum(r.kind == "arrays" and r.sensitivity == "model" for r in records)  # records like the model
    pieces = sum(max(1, math.ceil(array.nbytes / PIECE)) for array in arrays.values())
    objects = likewise * (len(arrays) + pieces) + len(records) + _OTHER_OBJECTS
    largest = max(
        PIECE,
        sum(len(name) + _NAME for name in arrays),
        objects * _OBJECT,
        *(r.max_bytes or 0 for r in records if r.kind != "arrays"),
    )
    return Traffic(largest + _CALL, 2 * objects + _OTHER_CALLS)


def check_traffic(deployment: Deployment, plan: StudyPlan, config: RunConfig) -> Traffic:
    """Refuse a plan with calls that the deployment's nginx would refuse.

    Raises:
        ConfigError: says what is too large, and the setting to change.
    """
    traffic, limits = traffic_of(plan, config), deployment.config.limits
    if traffic.body_bytes > limits.body_mb * 1_000_000:
        needed = math.ceil(traffic.body_bytes / 1e6)
        raise ConfigError(
            f"sites send up to {traffic.body_bytes / 1e6:.1f} MB in one call under this plan, and nginx refuses more "
            f"than {limits.body_mb} MB: set limits.body_mb: {needed} in {deployment.file('deploy.yaml')} and restart "
            "fedimb deploy up"
        )
    return traffic


def traffic_line(deployment: Deployment, traffic: Traffic) -> str:
    """The traffic beside the limits, in one line."""
    limits, rate = deployment.config.limits, site_rate(deployment)
    line = (
        f"up to {traffic.body_bytes / 1e6:.1f} MB in a call (limit: {limits.body_mb}), about {traffic.calls} calls per "
        f"site and round (limit: {rate} per second)"
    )
    waits = (traffic.calls - 10 * rate) / rate
    if waits > _PATIENT_S:
        line += f": each round waits {waits:.0f} s or more for that limit; raise limits.calls_per_s in deploy.yaml"
    return line
