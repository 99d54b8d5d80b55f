"""CBAM, DANet's attention and fused stages, against a second computation."""

import pytest
import torch
from torch.nn.functional import conv2d

from fedimb.errors import ConfigError
from fedimb.models.attention import ConvolutionalAttention, DualAttention
from fedimb.models.base import buffers_of
from fedimb.models.resnet import resnet8
from fedimb.testing import check_model


def maps(channels=8, seed=0):
    return torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_cbam_weighs_channels_then_places():
    torch.manual_seed(0)
    block, x = ConvolutionalAttention(8, reduction=4), maps()
    first, _, second = block.channel
    assert first.weight.shape == (2, 8)

    def network(pooled):
        return (pooled @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias

    flat = x.reshape(2, 8, 12)
    channels = torch.sigmoid(network(flat.mean(2)) + network(flat.max(2).values))
    weighted = x * channels.reshape(2, 8, 1, 1)
    both = torch.cat([weighted.mean(1, keepdim=True), weighted.max(1, keepdim=True).values], dim=1)
    places = torch.sigmoid(conv2d(both, block.place.weight, block.place.bias, padding=3))
    torch.testing.assert_close(block(x), weighted * places)


def test_dual_attention_adds_what_places_and_channels_see_of_each_other():
    torch.manual_seed(0)
    block, x = DualAttention(16), maps(16)
    torch.testing.assert_close(block(x), 2 * x)  # both start at weight 0: the two branches are x itself
    with torch.no_grad():
        block.alpha.fill_(0.7)
        block.beta.fill_(-0.3)
    q, k, v = (layer(x).reshape(2, -1, 12) for layer in (block.query, block.key, block.value))
    expected = 2 * x.reshape(2, 16, 12)
    for n in range(2):
        flat = x[n].reshape(16, 12)
        for i in range(12):
            seen = torch.softmax(torch.stack([q[n, :, i] @ k[n, :, j] for j in range(12)]), dim=0)
            expected[n, :, i] += 0.7 * sum(seen[j] * v[n, :, j] for j in range(12))
        for c in range(16):
            seen = torch.softmax(torch.stack([flat[c] @ flat[j] for j in range(16)]), dim=0)
            expected[n, c] += -0.3 * sum(seen[j] * flat[j] for j in range(16))
    torch.testing.assert_close(block(x), expected.reshape(x.shape), rtol=1e-4, atol=1e-4)


def test_fused_features_are_the_pooled_maps_of_every_stage():
    torch.manual_seed(0)
    model, x = resnet8(3, (1, 8, 8), width=8, fusion=True), torch.randn(2, 1, 8, 8)
    assert model.head.in_features == 8 + 16 + 32
    stages, expected = model.stem(x), []
    for block in model.body:
        stages = block(stages)
        expected.append(stages.mean(dim=(2, 3)))
    torch.testing.assert_close(model.features(x), torch.cat(expected, dim=1))


def test_blocks_stand_after_every_stage_or_after_the_last():
    kinds = [type(layer).__name__ for layer in resnet8(3, (8, 8), width=8, attention="cbam").body]
    assert kinds == ["BasicBlock", "ConvolutionalAttention"] * 3
    kinds = [type(layer).__name__ for layer in resnet8(3, (8, 8), width=8, attention="danet").body]
    assert kinds == ["BasicBlock"] * 3 + ["DualAttention"]


@pytest.mark.parametrize("settings", [{"attention": "cbam", "fusion": True}, {"attention": "danet"}, {"anchor": 0.9}])
def test_the_contract_of_a_model_holds_with_the_options(settings):
    check_model("resnet8", width=16, **settings)


def test_an_anchor_follows_the_last_stage_and_stands_beside_its_scales():
    torch.manual_seed(0)
    model, x = resnet8(3, (1, 8, 8), width=16, anchor=0.9), torch.randn(2, 1, 8, 8)
    stage = model.body[2]
    name = "2_conv1_weight"
    before = model.anchor.get_buffer(name).clone()
    assert torch.equal(before, stage.conv1.weight)
    with torch.no_grad():
        stage.conv1.weight.add_(1.0)
    model.eval()
    seen = model.body[:2](model.stem(x))
    own = stage(seen)
    with torch.no_grad():
        stage.conv1.weight.sub_(1.0)  # the anchor is where the stage was
        anchored = stage(seen)
        stage.conv1.weight.add_(1.0)
    expected = [conv(own).mean(dim=(2, 3)) for conv in model.scales] + [anchored.mean(dim=(2, 3))]
    torch.testing.assert_close(model.features(x), torch.cat(expected, dim=1))
    assert torch.equal(model.anchor.get_buffer(name), before)  # scoring moves nothing
    model.train()
    logits = model(x)
    torch.testing.assert_close(model.anchor.get_buffer(name), before + 0.1)
    logits.sum().backward()
    assert stage.conv1.weight.grad is not None
    assert model.anchor.get_buffer(name).grad is None


def test_an_anchor_is_sent_with_the_model_and_refuses_what_it_cannot_go_with():
    model = resnet8(3, (1, 8, 8), width=16, anchor=0.9)
    assert {f"anchor.{name}" for name in model.anchor.state_dict()} <= set(buffers_of(model))
    for settings, says in (({"norm": "batch"}, "running statistics"), ({"fusion": True}, "what the features are")):
        with pytest.raises(ConfigError, match=f"anchor=0.9 does not go with .*{says}"):
            resnet8(3, (1, 8, 8), width=16, anchor=0.9, **settings)
    with pytest.raises(ConfigError, match="anchor=1"):
        resnet8(3, (1, 8, 8), anchor=1.0)


def test_an_unknown_attention_is_refused():
    with pytest.raises(ConfigError, match="attention='cbma': give none, cbam or danet"):
        resnet8(2, (8, 8), attention="cbma")
