import numpy as np
import pytest
import torch
from torch import nn

from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of


class Small(Classifier):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.head = nn.Linear(4, 2)

    def features(self, x):
        return self.body(x)


def test_only_trainable_parameters_and_persistent_buffers_travel():
    model = Small()
    assert list(parameters_of(model)) == [n for n, p in model.named_parameters() if n != "frozen"]
    assert list(buffers_of(model)) == ["body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"]
    assert buffers_of(model)["body.1.num_batches_tracked"].shape == ()
    assert buffers_of(model)["body.1.num_batches_tracked"].dtype == np.int64


def test_what_is_read_is_a_copy():
    model = Small()
    before = parameters_of(model)
    parameters_of(model)["head.weight"][:] = 9
    buffers_of(model)["body.1.running_mean"][:] = 9
    np.testing.assert_array_equal(parameters_of(model)["head.weight"], before["head.weight"])
    assert (buffers_of(model)["body.1.running_mean"] == 0).all()


def test_weights_and_buffers_load_into_another_model():
    torch.manual_seed(0)
    source, target = Small(), Small()
    source.train()
    source(torch.randn(5, 3))
    load_into(target, {k: torch.from_numpy(v) for k, v in (parameters_of(source) | buffers_of(source)).items()})
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name
    assert target.head.weight.requires_grad


def test_unknown_names_and_other_shapes_are_refused():
    model = Small()
    with pytest.raises(KeyError, match=r"tail\.weight"):
        load_into(model, {"tail.weight": torch.zeros(2)})
    for name, shape in (("head.weight", (1, 4)), ("head.bias", (1,)), ("body.1.num_batches_tracked", (1,))):
        with pytest.raises(RuntimeError, match=name):
            load_into(model, {name: torch.zeros(shape)})


def test_a_model_must_say_what_its_features_are():
    with pytest.raises(NotImplementedError, match="Classifier must implement features"):
        Classifier().features(torch.zeros(1, 2))
