"""What every registered trainable generator must keep to. One added later is tested unasked, by its own YAML."""

import random
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml

from fedimb import registry
from fedimb.config.validate import GIVEN
from fedimb.errors import DataError
from fedimb.generation.examples import Examples
from fedimb.generation.training import train_generator
from tests.generation.generator_cases import SHORT, TRAINABLE, build, examples, ids, rng, same_bits, shape_of, trained

generators = pytest.mark.parametrize("name", TRAINABLE)


@pytest.mark.parametrize("name", registry.names("generator"))
def test_its_yaml_names_it_and_fits_its_arguments(name):
    args = yaml.safe_load((files("fedimb.configs") / "generator" / f"{name}.yaml").read_text())
    assert args.pop("name") == name
    assert registry.check_args("generator", name, args, given=GIVEN["generator"]).keys() == args.keys()


@generators
def test_losses_are_one_finite_number_per_row_and_train_the_network(name):
    generator, data = build(name), examples(shape_of(name))
    generator.fit_scale(data)
    generator.mark_seen(data)
    losses = generator.losses(data.x, data.y, data.d, rng())
    assert losses.shape == (10,)
    assert losses.dtype == torch.float32
    assert torch.isfinite(losses).all()
    losses.mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in generator.parameters() if p.requires_grad)


@generators
def test_a_rows_loss_at_a_level_does_not_depend_on_the_rows_after_it(name):
    generator, data = trained(name), examples(shape_of(name))
    with torch.no_grad():
        for level in (0.0, 0.5, 1.0):
            whole = generator.losses_at(data.x, data.y, data.d, level, rng())
            each = torch.full((10,), level)
            assert torch.equal(whole, generator.losses_at(data.x, data.y, data.d, each, rng()))
            changed = data.x.clone()
            changed[-1] = 0.0
            part = generator.losses_at(changed, data.y, data.d, level, rng())
            assert torch.allclose(whole[:-1], part[:-1], atol=1e-5)
            if level < 1:
                assert not torch.allclose(whole[-1], part[-1], atol=1e-5)


@generators
def test_samples_have_the_shape_asked_and_stay_in_the_range_seen(name):
    generator, data = trained(name), examples(shape_of(name))
    counted = []
    made = generator.sample(ids(2, 0, 0), ids(1, 0, 1), rng(), counted.append)
    assert made.shape == (3, *shape_of(name))
    assert made.dtype == torch.float32
    assert sum(counted) == 3
    assert made.min() >= data.x.min()
    assert made.max() <= data.x.max()
    assert len(torch.unique(made, dim=0)) == 3
    assert generator.sample(ids(), ids(), rng()).shape == (0, *shape_of(name))


@generators
def test_the_conditions_are_heard(name):
    generator = trained(name)
    as_asked = generator.sample(ids(0), ids(0), rng())
    assert not torch.equal(as_asked, generator.sample(ids(1), ids(0), rng())), "class ignored"
    assert not torch.equal(as_asked, generator.sample(ids(0), ids(1), rng())), "domain ignored"


@generators
def test_guidance_zero_is_the_conditional_alone_and_above_differs(name):
    plain, guided = trained(name, guidance=0.0), trained(name, guidance=2.0)
    assert same_bits(plain.state_dict(), guided.state_dict())
    assert not torch.equal(plain.sample(ids(1), ids(0), rng()), guided.sample(ids(1), ids(0), rng()))


@generators
def test_the_same_seed_gives_the_same_bits_another_another(name):
    first, second = trained(name), trained(name)
    assert same_bits(first.state_dict(), second.state_dict())
    draws = [g.sample(ids(0, 1), ids(0, 1), rng(5)) for g in (first, second)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], first.sample(ids(0, 1), ids(0, 1), rng(6)))
    assert not same_bits(first.state_dict(), trained(name, seed=4).state_dict())
    fresh, other = build(name).state_dict(), build(name, seed=1).state_dict()
    assert any(not torch.equal(fresh[key], other[key]) for key in fresh if key.startswith("net"))


@generators
def test_no_global_generator_is_drawn_from_or_moved(name):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    trained(name).sample(ids(0), ids(0), rng())
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


@generators
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_killed_training_goes_on_to_the_same_bits(name, stop, tmp_path):
    data, file = examples(shape_of(name)), tmp_path / "generator.safetensors"
    whole = build(name)
    mean = train_generator(whole, data, SHORT, 3)

    class Killed(Exception):
        pass

    def kill(n, left=[stop]):  # noqa: B006 (counts down between calls)
        left[0] -= n
        if left[0] == 0:
            raise Killed

    with pytest.raises(Killed):
        train_generator(build(name), data, SHORT, 3, checkpoint=file, progress=kill)
    assert file.exists() == (stop >= SHORT.checkpoint_every)
    resumed, steps = build(name), []
    assert train_generator(resumed, data, SHORT, 3, checkpoint=file, progress=steps.append) == mean
    assert sum(steps) == SHORT.steps
    assert not file.exists()
    assert same_bits(resumed.state_dict(), whole.state_dict())


@generators
def test_its_state_alone_carries_it_to_another_process(name):
    generator, other = trained(name), build(name, seed=9)
    other.load_state_dict(generator.state_dict())
    asked = ids(0, 1, 2), ids(0, 1, 0)
    assert torch.equal(generator.sample(*asked, rng()), other.sample(*asked, rng()))
    assert all(value.numpy().dtype == np.float32 for value in other.state_dict().values())


@generators
def test_rows_of_classes_and_domains_are_named_in_the_state(name):
    state, generator = build(name).state_dict(), build(name)
    for rows, n in ((generator.class_rows(), 3), (generator.domain_rows(), 2)):
        assert len(rows) >= 2
        for key, count in rows.items():
            assert count == n
            assert len(state[key]) == n + 1


@generators
def test_an_absent_class_is_no_hindrance_and_cannot_be_asked_for(name):
    generator = trained(name, examples(shape_of(name), (4, 0, 3)))
    assert generator.sample(ids(0, 2), ids(0, 0), rng()).shape[0] == 2
    with pytest.raises(DataError, match=r"class \[1\]: the generator was trained on none"):
        generator.sample(ids(0, 1), ids(0, 0), rng())
    fresh = build(name).state_dict()
    for key, n in generator.class_rows().items():
        if not key.endswith("_seen"):
            moved = (generator.state_dict()[key] != fresh[key]).any(dim=1)
            assert moved.tolist() == [True, False, True, True], f"{key}: rows of {n} classes and 'not said'"


@generators
@pytest.mark.parametrize("counts", [(4,), (1,), (0, 0, 1)], ids=["one_class", "one_row", "one_row_of_three"])
def test_one_class_and_one_row_are_learned_from(name, counts):
    generator = build(name, n_classes=len(counts), n_domains=1)
    loss = train_generator(generator, examples(shape_of(name), counts, n_domains=1), SHORT, 0)
    assert np.isfinite(loss)
    assert torch.isfinite(generator.sample(ids(len(counts) - 1), ids(0), rng())).all()


@generators
def test_rows_that_are_all_equal_are_given_back(name):
    shape = shape_of(name)
    data = Examples(torch.full((6, *shape), 0.3), ids(0, 0, 0, 1, 1, 2), ids(0, 0, 0, 0, 0, 0))
    made = trained(name, data).sample(ids(0, 1, 2), ids(0, 0, 0), rng())
    assert torch.equal(made, torch.full((3, *shape), 0.3))


@generators
def test_a_domain_not_trained_on_is_asked_for_as_not_said(name):
    shape = shape_of(name)
    data = examples(shape, n_domains=1)  # only domain 0 of two
    generator = trained(name, data)
    unseen, beyond, null = (generator.sample(ids(0), ids(d), rng()) for d in (1, 7, 2))
    assert torch.equal(unseen, beyond)
    assert torch.equal(unseen, null)
    assert not torch.equal(unseen, generator.sample(ids(0), ids(0), rng()))


@generators
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: Examples(e.x[:0], e.y[:0], e.d[:0]), "no examples"),
        (lambda e: Examples(e.x.double(), e.y, e.d), "float64: give float32"),
        (lambda e: Examples(torch.cat([e.x, e.x], -1), e.y, e.d), "one size and one number of channels"),
        (lambda e: Examples(e.x[:, None], e.y, e.d), "one size and one number of channels"),
        (
            lambda e: Examples(torch.where(e.y.view(-1, *[1] * (e.x.ndim - 1)) == 2, torch.nan, e.x), e.y, e.d),
            "example 9",
        ),
        (lambda e: Examples(e.x, e.y[1:], e.d), "one class id and one domain id"),
        (lambda e: Examples(e.x, e.y + 1, e.d), r"class ids 1..3: expected 0..2"),
        (lambda e: Examples(e.x, e.y - 1, e.d), r"class ids -1..1: expected 0..2"),
        (lambda e: Examples(e.x, e.y.int(), e.d), "int64"),
    ],
    ids=["none", "dtype", "size", "channels", "nan", "labels", "above", "below", "int32"],
)
def test_bad_examples_are_refused_with_place_and_remedy(name, change, says):
    generator = build(name)
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    with pytest.raises(DataError, match=says):
        train_generator(generator, change(examples(shape_of(name))), SHORT, 0)
    after = generator.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if "seen" in key or key.startswith("net"))
