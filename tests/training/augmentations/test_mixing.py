import pytest
import torch
from small_runs import config
from torch.nn.functional import cross_entropy

from fedimb.errors import ConfigError
from fedimb.models.logistic import Logistic
from fedimb.training.augmentations.color_jitter import ColorJitter
from fedimb.training.augmentations.cutout import Cutout
from fedimb.training.augmentations.mixing import CutMix, Mixup, draw_share
from fedimb.training.augmentations.rand_augment import RandAugment
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

SHAPE = (3, 8, 8)


def mixed(augment, seed=0, n=6):
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(9))
    return x, augment(x, torch.zeros(n), x, torch.zeros(n), torch.Generator().manual_seed(seed))


def test_mixup_is_the_mean_of_two_rows_by_the_share():
    x, found = mixed(Mixup(input_shape=SHAPE))
    assert torch.allclose(found.inputs, found.share * x + (1 - found.share) * x[found.partners])


def test_cutmix_counts_the_pixels_it_replaced():
    shares = []
    for seed in range(40):
        x, found = mixed(CutMix(input_shape=SHAPE), seed)
        replaced = (found.inputs != x).any(1)[found.partners != torch.arange(6)]
        assert (replaced == replaced[0]).all()  # one rectangle in the whole batch
        assert float(found.share) == pytest.approx(1 - float(replaced[0].float().mean()))
        rows, columns = replaced[0].any(1), replaced[0].any(0)
        assert torch.equal(replaced[0], rows[:, None] & columns[None, :])
        shares.append(float(found.share))
    assert min(shares) < 0.4 < 0.9 < max(shares)
    assert float(mixed(CutMix(p=0.0, input_shape=SHAPE))[1].share) == 1


def test_shares_are_of_the_beta_distribution():
    generator = torch.Generator().manual_seed(0)
    for alpha in (0.2, 1.0, 8.0):
        draws = torch.stack([draw_share(alpha, torch.zeros(1), generator) for _ in range(4000)])
        assert float(draws.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(draws.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_the_loss_of_a_step_is_that_of_both_labels():
    x, y = torch.rand(6, *SHAPE), torch.arange(6) % 3
    torch.manual_seed(0)
    ours, theirs = Logistic(3, SHAPE), Logistic(3, SHAPE)
    theirs.load_state_dict(ours.state_dict())
    seen = []

    class Noted(Mixup):
        def __call__(self, *args):
            seen.append((super().__call__(*args), args[1]))
            return seen[-1][0]

    spec = TrainSpec("train", 1, 6, "sgd", 0.5, 0.0, 0.0, CrossEntropy(), Shuffle(), (), (Noted(input_shape=SHAPE),))
    loss = train_locally(ours, x, y, spec, torch.Generator().manual_seed(3)).loss
    (found, labels) = seen[0]
    logits = theirs(found.inputs)
    by_hand = found.share * cross_entropy(logits, labels)
    by_hand = by_hand + (1 - found.share) * cross_entropy(logits, labels[found.partners])
    assert loss == pytest.approx(by_hand.item(), abs=1e-6)
    by_hand.backward()
    assert torch.allclose(ours.head.weight, theirs.head.weight - 0.5 * theirs.head.weight.grad, atol=1e-6)


def test_cutout_blanks_a_square_that_the_border_may_cut():
    x = torch.ones(400, *SHAPE)
    labels = torch.zeros(400)
    out = Cutout(4, fill=0.25, input_shape=SHAPE)(x, labels, x, labels, torch.Generator().manual_seed(0))
    blank = (out == 0.25).all(1)
    assert torch.equal(out.isclose(torch.tensor(0.25)).any(1), blank)
    sizes = blank.sum((1, 2))
    assert sizes.max() == 16
    assert sizes.min() == 4  # around a corner pixel: 2 x 2
    assert sizes.float().mean() == pytest.approx(3.5**2, rel=0.06)  # sides 2, 3, 4 five times, 3


def test_colour_jitter_stays_within_its_factors():
    x = torch.full((200, *SHAPE), 0.5)
    labels = torch.zeros(200)
    out = ColorJitter(0.4, 0.0, 0.0, input_shape=SHAPE)(x, labels, x, labels, torch.Generator().manual_seed(0))
    levels = out.flatten(1)
    assert torch.equal(levels.amin(1), levels.amax(1))
    assert 0.3 <= float(levels.min()) < 0.32
    assert 0.68 < float(levels.max()) <= 0.7


@pytest.mark.parametrize("kind", [ColorJitter, RandAugment])
def test_values_beyond_those_of_pictures_are_refused(kind):
    x = torch.randn(4, *SHAPE)
    with pytest.raises(ConfigError, match=r"colours in \[0, 1\]; these reach from -"):
        kind(input_shape=SHAPE)(x, torch.zeros(4), x, torch.zeros(4), torch.Generator())


@pytest.mark.parametrize("names", ["mixup,flip", "mixup,cutmix"])
def test_what_mixes_rows_goes_last_and_alone(names):
    with pytest.raises(ConfigError, match="'mixup' mixes rows and their labels, so it goes last"):
        config(f"local.augmentation=[{names}]")
    config("local.augmentation=[flip,cutmix]")
