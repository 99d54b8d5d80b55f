"""What a plan's replies take in calls, beside Flower's own serialization; and plans that nginx would not let pass."""

from pathlib import Path
from unittest.mock import patch

import pytest
from behind_nginx import limited
from coordinator import make_deployment
from study_plans import plan_of, run_config

from fedimb.config.parts import build_model
from fedimb.deploy.coordinator.traffic import PIECE, check_traffic, traffic_line, traffic_of
from fedimb.errors import ConfigError
from fedimb.records import array_record

AT_SITES = ("data.test={name: none}", "data.validation=0.2", "clients.count=3")


def _calls(arrays: dict[str, object]) -> list[int]:
    """Sizes of the calls with which a SuperNode sends a reply with these arrays: the tree, then every object."""
    from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.app.message import remove_content_from_message
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import PushMessagesRequest
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
    from flwr.supercore.task_identity import TaskIdentity

    with patch.multiple(TaskIdentity, _task_id=2**63, _run_id=2**63, _node_id=2**63):
        metrics = MetricRecord({"loss": 1.0, "num-examples": 10})
        signature = ConfigRecord({"signature": b"x" * 160})
        content = RecordDict({"arrays": array_record(arrays), "metrics": metrics, "x.signature": signature})
        reply = Message(content, dst_node_id=1, message_type="train")
        reply.metadata.__dict__["_message_id"] = reply.object_id
        node, tree = Node(node_id=2**63), get_object_tree(reply)
        objects = get_all_nested_objects(reply).values()
        head = message_to_proto(remove_content_from_message(reply))
    first = PushMessagesRequest(
        node=node, messages_list=[head], message_object_trees=[tree], clientapp_runtime_list=[1]
    )
    words = {"node": node, "run_id": 2**63, "object_id": "a" * 64, "session_id": "s" * 36}
    return [len(first.SerializeToString())] + [
        len(PushObjectRequest(object_content=one.deflate(), **words).SerializeToString()) for one in objects
    ]


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (["model=logistic"], [13]),
        (["model=mlp", "model.hidden=[4096]"], [1000]),  # its largest array: 16 MB, in four pieces
        (["model=cnn4conv", "model.norm=batch"], [3, 32, 32]),
    ],
)
def test_the_largest_call_and_their_number_are_flowers(words: list[str], shape: list[int]) -> None:
    config = run_config(*AT_SITES, *words)
    plan = plan_of(config, input_shape=shape)
    model = build_model(config, len(plan.classes), tuple(shape))
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    calls, traffic = _calls(arrays), traffic_of(plan, config)
    assert max(calls) <= traffic.body_bytes <= PIECE + 1024
    assert 2 * len(calls) <= traffic.calls


def test_a_plan_whose_calls_nginx_would_refuse_is_refused_before_it_is_written(tmp_path: Path) -> None:
    config = run_config(*AT_SITES, "model=mlp", "model.hidden=[4096]")
    plan = plan_of(config, input_shape=[1000])
    deployment = make_deployment(tmp_path / "d")
    line = traffic_line(deployment, check_traffic(deployment, plan, config))
    assert "up to 5.2 MB in a call (limit: 8)" in line
    assert "each round waits" not in line
    with pytest.raises(ConfigError, match=r"up to 5.2 MB in one call.*more than 4 MB: set limits.body_mb: 6"):
        check_traffic(limited(deployment, body_mb=4), plan, config)
    slow = limited(deployment, calls_per_s=1)
    assert "each round waits" in traffic_line(slow, check_traffic(slow, plan, config))
