"""Data sets built here and saved to disk; importing `datasets` takes seconds, so what needs it is slow."""

import io

import numpy as np
import pytest

from fedimb.data.inputs import Inputs
from fedimb.data.new_rows import Expected
from fedimb.data.problems import Problems
from fedimb.data.sources.huggingface import HuggingFace
from fedimb.errors import ConfigError, DataError
from fedimb.testing import check_source

PIXELS = np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3)


def png(pixels):
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


@pytest.fixture
def saved(tmp_path):
    """Save columns as a data set, or splits of columns, and return its folder."""
    import datasets

    def save(splits, **features):
        def one(columns):
            data = datasets.Dataset.from_dict(columns)
            for name, feature in features.items():
                data = data.cast_column(name, feature)
            return data

        folder = tmp_path / "set"
        if all(isinstance(part, dict) for part in splits.values()):
            datasets.DatasetDict({name: one(part) for name, part in splits.items()}).save_to_disk(folder)
        else:
            one(splits).save_to_disk(folder)
        return str(folder)

    return save


@pytest.mark.slow
def test_images_with_the_official_split_and_class_names(saved):
    import datasets

    images = [png(pixels) for pixels in PIXELS]
    path = saved(
        {
            "train": {"image": images[:4], "label": [0, 2, 1, 0], "who": ["b", "a", "b", "c"]},
            "test": {"image": images[4:], "label": [1, 2], "who": ["d", "e"]},
        },
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["cat", "dog", "owl"]),
    )
    check_source("huggingface", path=path, site="who", patient="who")
    source = HuggingFace(path, site="who", patient="who")
    data = source.load()
    assert np.array_equal(data.x, PIXELS.transpose(0, 3, 1, 2))
    assert data.scale == 1 / 255
    assert (data.class_names, data.y.tolist()) == (("cat", "dog", "owl"), [0, 2, 1, 0, 1, 2])
    assert data.official_test.tolist() == [False] * 4 + [True] * 2
    assert data.patients.tolist() == data.sites.tolist() == [1, 0, 1, 2, 3, 4]
    assert data.site_names == ("a", "b", "c", "d", "e")
    assert HuggingFace(path, mode="L", size=(2, 3)).load().x.shape == (6, 1, 2, 3)
    assert len(HuggingFace(path, test_split=None).load().x) == 4
    assert source.fingerprint() == HuggingFace(path).fingerprint()


@pytest.mark.slow
def test_numbers_and_labels_without_names(saved):
    path = saved({"a": [1.5, None, 3], "b": [1, 2, 3], "label": [10, 9, 10]})
    data = HuggingFace(path, image=None, features=["b", "a"]).load()
    assert str(data.x.tolist()) == "[[1.0, 1.5], [2.0, nan], [3.0, 3.0]]"
    assert (data.class_names, data.y.tolist()) == (("9", "10"), [1, 0, 1])
    assert data.scaled.tolist() == [True, True]
    assert data.official_test is None


@pytest.mark.slow
def test_bad_rows_are_named_or_left_out(saved):
    import datasets

    images = [png(PIXELS[0]), {"bytes": b"no image", "path": None}, None, png(PIXELS[0, :3]), png(PIXELS[1])]
    path = saved({"image": images, "label": [0, 1, 0, 1, 1]}, image=datasets.Image())
    with pytest.raises(DataError, match=r"^3 bad rows: .*set train\[1\]: cannot be decoded") as caught:
        HuggingFace(path).load()
    assert "train[2]: the image is missing" in str(caught.value)
    assert "train[3]: the image is [3, 5] pixels, the first [4, 5]; give size=[h, w]" in str(caught.value)
    data = HuggingFace(path, on_bad="skip").load()
    assert (len(data.x), len(data.skipped)) == (2, 3)
    assert len(HuggingFace(path, on_bad="skip", size=(2, 2)).load().x) == 3

    numbers = {"a": [1.0, float("inf"), 2.0, 3.0], "label": ["x", "y", None, ""], "names": [[1], [2], [1], [2]]}
    path = saved(numbers)
    with pytest.raises(DataError) as caught:
        HuggingFace(path, image=None, features=["a"]).load()
    assert "train[1]: column 'a': inf is not a finite number" in str(caught.value)
    assert "train[2] and 1 more: the label is missing" in str(caught.value)


@pytest.mark.slow
def test_a_wrong_column_split_or_folder_is_refused(saved, tmp_path):
    import datasets

    path = saved({"train": {"image": [1, 2], "label": [0, -1]}}, label=datasets.ClassLabel(names=["a", "b"]))
    with pytest.raises(DataError, match=r"label names 'lable', which is not a column\. Did you mean 'label'"):
        HuggingFace(path, image=None, features=["image"], label="lable").load()
    with pytest.raises(DataError, match="column 'image' does not hold images"):
        HuggingFace(path).load()
    with pytest.raises(DataError, match=r"no split 'training'\. Did you mean 'train'"):
        HuggingFace(path, train_split="training").load()
    with pytest.raises(DataError, match=r"train\[1\]: label -1 is not one of the 2 classes"):
        HuggingFace(path, image=None, features=["image"]).load()
    other = {"a": [1, 2], "label": [0, 1]}
    path = saved({"train": other, "test": other}, label=datasets.ClassLabel(names=["a", "b"]))
    split = datasets.load_from_disk(path)
    split["test"] = split["test"].cast_column("label", datasets.ClassLabel(names=["b", "a"]))
    split.save_to_disk(tmp_path / "other")
    with pytest.raises(DataError, match="split 'test' has other class names"):
        HuggingFace(str(tmp_path / "other"), image=None, features=["a"]).load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty is not a data set written by save_to_disk"):
        HuggingFace(str(tmp_path / "empty")).load()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_hub_name_offline_is_refused(monkeypatch, tmp_path, variable):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DataError, match=f"no 'owner/name' in the current folder .* because {variable} is set"):
        HuggingFace("owner/name").load()


def test_a_folder_that_is_not_there_is_no_hub_name(monkeypatch):
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    for path in ("/none/such", "./none/such", "none/such/folder"):
        with pytest.raises(DataError, match="none/such"):
            HuggingFace(path).fingerprint()
    assert HuggingFace("owner/name", revision="v1").fingerprint() == "huggingface-1-owner/name-None-v1"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"image": None}, "give image=<column>, or image=null and features"),
        ({"features": ["a"]}, "give image=<column>, or image=null and features"),
        ({"image": None, "features": []}, "give image=<column>, or image=null and features"),
        ({"mode": "CMYK"}, "give RGB or L"),
        ({"size": (0, 3)}, "size=.*each at least 1"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(args, says):
    with pytest.raises(ConfigError, match=says):
        HuggingFace("x", **args)


@pytest.mark.slow
def test_new_rows_need_no_label_column(saved):
    import datasets

    inputs = Inputs((3, 4, 5), "uint8", 0.0, 255.0)
    expected = Expected(inputs, ("cat", "dog"), "multiclass")
    bare = saved({"image": [png(pixels) for pixels in PIXELS]}, image=datasets.Image())
    (batch,) = HuggingFace(bare).new_rows(expected, Problems())
    assert batch.labels is None
    assert np.array_equal(batch.x, PIXELS.transpose(0, 3, 1, 2))
    assert batch.rows.tolist() == list(range(6))
    names = datasets.ClassLabel(names=["cat", "dog", "owl"])
    labelled = saved(
        {"image": [png(pixels) for pixels in PIXELS[:3]], "label": [1, -1, 2]}, image=datasets.Image(), label=names
    )
    problems = Problems()
    (batch,) = HuggingFace(labelled).new_rows(expected, problems)
    assert batch.labels.tolist() == [1, -1]  # dog, hidden
    assert "label 'owl' is not a class of the run" in problems.lines[0]
    table = saved({"a": [1.0, None], "b": [3, 4], "note": ["x", "y"]})
    columns = Expected(Inputs((2,), "float32"), ("cat", "dog"), "multiclass")
    (batch,) = HuggingFace(table, image=None, features=["b", "a"]).new_rows(columns, Problems())
    assert np.array_equal(batch.x, np.array([[3, 1], [4, np.nan]], np.float32), equal_nan=True)


def test_patients_in_narrow_floats_are_not_taken_for_exact_ids(saved):
    from datasets import Value

    def path_of(first):
        columns = {"a": [0.5, 0.7, 0.9], "label": ["x", "y", "x"], "who": [first, first + 1.0, 3.0]}
        return saved(columns, who=Value("float32"))

    assert HuggingFace(path_of(100.0), image=None, features=["a"], patient="who").load().patients.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"whole numbers from 2\^24 on are rounded"):
        HuggingFace(path_of(16777216.0), image=None, features=["a"], patient="who").load()
