import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError
from fedimb.training.augmentations.class_composite import ClassComposite, same_class


def drawn(labels, of_rows, k, seed=0):
    return same_class(torch.tensor(labels), torch.tensor(of_rows), k, torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(of_rows=st.lists(st.integers(0, 4), min_size=1, max_size=25), k=st.integers(1, 5), seed=st.integers(0, 999))
def test_rows_are_of_the_class_and_distinct_while_it_has_enough(of_rows, k, seed):
    labels = (of_rows * 3)[:40]
    for label, positions in zip(labels, drawn(labels, of_rows, k, seed).tolist(), strict=True):
        assert {of_rows[i] for i in positions} == {label}
        held = of_rows.count(label)
        assert len(set(positions)) == min(k, held)
        assert max(positions.count(i) for i in positions) == -(-k // held)  # none thrice before all twice


def test_every_ordered_choice_is_equally_likely():
    of_rows = [1, 0, 1, 1, 0, 1]  # class 1 at 0, 2, 3, 5
    choices = [tuple(p) for p in drawn([1] * 2400, of_rows, 3).tolist()]
    counts = {c: choices.count(c) for c in itertools.permutations([0, 2, 3, 5], 3)}
    assert sum(counts.values()) == 2400
    assert min(counts.values()) > 55  # 100 each, standard deviation 9.8
    assert max(counts.values()) < 145


def test_a_composite_is_k_images_one_above_the_other():
    rows = torch.tensor([1.0, 2.0, 3.0, 9.0])[:, None, None, None].expand(4, 2, 6, 5)
    labels = torch.tensor([0, 0, 0, 1])
    out = ClassComposite(k=3, p=1.0, input_shape=(2, 6, 5))(
        rows, labels, rows, labels, torch.Generator().manual_seed(1)
    )
    bands = out[:, :, ::2].mean(dim=3)  # [b, c, 3]: bands of two lines
    assert torch.equal(out[:, :, 0::2], out[:, :, 1::2])
    for image in bands[:3]:
        assert torch.equal(image[0], image[1])  # channels stay together
        assert sorted(image[0].tolist()) == [1.0, 2.0, 3.0]
    assert torch.equal(out[3], rows[3])  # a class of one image repeats it


def test_resizing_takes_the_mean_over_the_area():
    rows = torch.arange(4.0).view(1, 4, 1).expand(1, 4, 3).contiguous()  # grey, lines 0 1 2 3
    labels = torch.tensor([0])
    out = ClassComposite(k=2, p=1.0, input_shape=(4, 3))(rows, labels, rows, labels, torch.Generator())
    assert torch.equal(out[0, :, 0], torch.tensor([0.5, 2.5, 0.5, 2.5]))


def test_p_is_the_share_composed_and_the_others_stay_as_the_batch_has_them():
    rows, labels = torch.rand(300, 4, 4), torch.zeros(300, dtype=torch.int64)
    batch = rows + 10  # as an augmentation before this one would leave it
    out = ClassComposite(p=0.5, input_shape=(4, 4))(batch, labels, rows, labels, torch.Generator().manual_seed(0))
    plain = (out == batch).all(dim=(1, 2))
    assert 115 < int(plain.sum()) < 185  # 150, standard deviation 8.7
    assert (out[~plain] < 2).all()
    assert torch.equal(ClassComposite(p=0.0, input_shape=(4, 4))(batch, labels, rows, labels, torch.Generator()), batch)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="k=0: give a finite number of at least 1"):
        ClassComposite(k=0, input_shape=(4, 4))
    with pytest.raises(ConfigError, match="p=2: give a finite number of at least 0 and at most 1"):
        ClassComposite(p=2, input_shape=(4, 4))
