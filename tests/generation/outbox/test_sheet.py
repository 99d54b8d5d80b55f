"""The contact sheet: every sample with the real record nearest to it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from fedimb.errors import DataError
from fedimb.generation.outbox.sheet import contact_sheet
from fedimb.privacy.audit.types import Batch


def whole(x):
    return Batch(np.asarray(x, np.float32), np.zeros(len(x), np.int64))


def test_pictures_stand_beside_their_nearest_the_nearest_pair_first():
    flat = np.zeros((1, 1, 4, 4))
    html = contact_sheet(whole(np.concatenate([flat + 0.5, flat + 0.8])), whole([flat[0], flat[0] + 1]), "t").decode()
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[0, 0]
        for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)
    ]
    assert shown[:2] == [204, 255]  # .8 beside 1; then .5 beside either, they are as far
    assert shown[2] == 128
    assert html.count("<figure>") == 2
    assert "<figcaption>1.6<" in html  # .2 apart in 16 pixels of standard deviation .5: 4 * .2 / .5
    assert "<figcaption>4<" in html


def test_a_table_shows_numbers_and_names_are_escaped():
    html = contact_sheet(whole([[1.5, 2.0]]), whole([[1.5, 2.5], [9.0, 9.0]]), "batch 1, class <b>").decode()
    assert "class &lt;b&gt;" in html
    assert "<b>" not in html
    rows = [re.findall(r"<td>([^<]*)", line) for line in html.splitlines() if line.startswith("<tr class")]
    assert [row[0] for row in rows] == ["synthetic", "real"]
    assert [row[2:] for row in rows] == [["1.5", "2"], ["1.5", "2.5"]]


def test_a_copy_is_seen_whatever_class_the_original_is_of():
    real = Batch(np.eye(4, dtype=np.float32), np.arange(4))
    html = contact_sheet(whole([np.eye(4)[3]]), real, "t").decode()
    assert "<td>synthetic<td>0<td>0<td>0<td>0<td>1" in html
    assert "<td>real<td><td>0<td>0<td>0<td>1" in html


def test_what_can_be_shown_neither_way_is_refused():
    with pytest.raises(DataError, match="shows pictures"):
        contact_sheet(whole(np.zeros((2, 2, 3))), whole(np.zeros((2, 2, 3))), "t")
