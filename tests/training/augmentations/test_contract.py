"""What every registered augmentation must keep to. One added later is tested unasked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb import registry
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.models.logistic import Logistic
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import Mixed, TrainSpec

IMAGES = [(1, 1), (8, 8), (5, 7), (1, 6, 4), (3, 7, 8), (3, 2, 9)]
SIGNALS = [(1, 1), (2, 3), (1, 40), (9, 21), (12, 4)]
every = pytest.mark.parametrize("name", registry.names("augmentation"))


def built(name, shape):
    return registry.build("augmentation", name, {"input_shape": shape})


def takes_images(name):
    """Whether it changes images; else it is one of signals, and says so."""
    try:
        built(name, (3, 8, 8))
    except ConfigError as error:
        return "changes signals" not in str(error)
    return True


def inputs_of(augmented, batch):
    """The new inputs; what a mixing augmentation says of labels is checked here."""
    if not isinstance(augmented, Mixed):
        return augmented
    assert sorted(augmented.partners.tolist()) == list(range(batch))
    assert 0 <= float(augmented.share) <= 1
    return augmented.inputs


@every
@settings(max_examples=15, deadline=None)
@given(drawn=st.data(), n=st.integers(1, 12), batch=st.integers(1, 9), seed=st.integers(0, 99))
def test_shape_and_type_stay_a_seed_repeats_and_nothing_given_changes(name, drawn, n, batch, seed):
    shape = drawn.draw(st.sampled_from(IMAGES if takes_images(name) else SIGNALS))
    rows, labels = torch.rand(n, *shape), torch.randint(3, (n,))
    chosen = torch.randint(n, (batch,))
    given_ = [rows[chosen], labels[chosen], rows, labels]
    before = [t.clone() for t in given_]
    one, two = (inputs_of(built(name, shape)(*given_, torch.Generator().manual_seed(seed)), batch) for _ in range(2))
    assert one.shape == given_[0].shape
    assert one.dtype == torch.float32
    assert torch.isfinite(one).all()
    assert torch.equal(one, two)
    assert all(torch.equal(a, b) for a, b in zip(before, given_, strict=True))


@every
def test_draws_come_from_the_generator_alone_and_differ_between_batches(name):
    shape = (3, 8, 8) if takes_images(name) else (3, 64)
    rows, labels = torch.rand(40, *shape), torch.arange(40) % 2
    augment, generator = built(name, shape), torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    one, two = (inputs_of(augment(rows, labels, rows, labels, generator), 40) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one, rows)
    assert not torch.equal(one, two)


@every
def test_a_table_is_taken_or_refused_in_one_line(name):
    x, y = torch.rand(4, 13), torch.tensor([0, 1, 0, 1])
    if name == "noise":
        assert built(name, (13,))(x, y, x, y, torch.Generator()).shape == x.shape
    else:
        what = "images" if takes_images(name) else "signals"
        with pytest.raises(ConfigError, match=rf"^augmentation '{name}' changes {what}: .* this data has \(13,\)"):
            built(name, (13,))


def test_a_configuration_names_them_in_order():
    config = validate(compose(["local.augmentation=[class_composite,flip,{name: pad_crop, pad: 2}]"]))
    assert config.local.augmentation == [{"name": "class_composite"}, {"name": "flip"}, {"name": "pad_crop", "pad": 2}]
    with pytest.raises(ConfigError, match=r"no augmentation 'flipp'\. Did you mean 'flip'"):
        validate(compose(["local.augmentation=[flipp]"]))
    with pytest.raises(ConfigError, match=r"augmentation 'pad_crop': pad=1\.5"):
        validate(compose(["local.augmentation=[{name: pad_crop, pad: 1.5}]"]))


def test_training_sees_the_augmented_inputs():
    x, y = torch.rand(12, 1, 6, 6), torch.arange(12) % 2
    weights = []
    for names in ((), ("class_composite", "flip", "pad_crop", "noise"), ("rand_augment", "cutout", "mixup")):
        torch.manual_seed(0)
        model = Logistic(2, (1, 6, 6))
        augment = tuple(built(name, (1, 6, 6)) for name in names)
        spec = TrainSpec("train", 4, 5, "sgd", 0.1, 0.0, 0.0, CrossEntropy(), Shuffle(), (), augment)
        assert train_locally(model, x, y, spec, torch.Generator().manual_seed(0)).steps == 4
        weights.append(model.head.weight.detach())
    assert not any(torch.equal(weights[0], other) for other in weights[1:])
