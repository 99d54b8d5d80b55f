"""Images listed in a CSV: columns, labels, units, fingerprints."""

import pytest
from tiny_images import image, packed, put, two_classes

from fedimb.data.sources.image_csv import ImageCsv

ROWS = "path,label\ndog/0.png,dog\ncat/1.png,cat\n"


@pytest.fixture
def listed(tmp_path):
    """Four images and a list of them, by its text; returns the source."""

    def make(text, **args):
        (two_classes(tmp_path) / "list.csv").write_text(text, encoding="utf-8-sig")
        return ImageCsv(str(tmp_path / "list.csv"), **args)

    return make


def test_rows_keep_the_order_of_the_list(listed):
    data = listed(ROWS).load()
    assert data.class_names == ("cat", "dog")
    assert data.y.tolist() == [1, 0]
    assert data.x[:, 0, 0, 0].tolist() == [3, 2]
    assert data.official_test is data.sites is data.patients is None


def test_site_patient_and_split_are_used_where_the_list_has_them(listed):
    rows = "dog/0.png,1,b,9,test\ncat/0.png,0,a,7,train\ncat/1.png,0,b,7,Validation\n"
    data = listed("path,label,site,patient,split\n" + rows).load()
    assert data.site_names == ("a", "b")
    assert data.sites.tolist() == [1, 0, 1]
    assert data.patients.tolist() == [1, 0, 0]
    assert data.official_test.tolist() == [True, False, False]
    without = listed("path,label,site,patient,split\n" + rows, site_column=None, patient_column=None, split_column=None)
    data = without.load()
    assert data.official_test is data.sites is data.patients is None


def test_columns_under_other_names(listed):
    text = "what;image;ward\ncat;cat/0.png;b\ndog;dog/0.png;a\n"
    data = listed(text, path_column="image", label_column="what", site_column="ward", delimiter=";").load()
    assert data.site_names == ("a", "b")
    assert data.y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "names", "y"),
    [
        (("1", "0"), ("cat", "dog"), ("cat", "dog"), [1, 0]),  # ids
        (("dog", "cat"), ("dog", "cat"), ("dog", "cat"), [0, 1]),  # names
        (("1", "2"), ("2", "1"), ("2", "1"), [1, 0]),  # names that are numbers: never ids
        (("10", "9"), None, ("9", "10"), [1, 0]),  # found: numbers by size
        (("a|b", "c"), ("a|b", "c"), ("a|b", "c"), [0, 1]),  # a class that is called so
    ],
)
def test_labels_by_name_or_by_id(listed, labels, classes, names, y):
    text = "path,label\ncat/0.png,{}\ndog/0.png,{}\n".format(*labels)
    data = listed(text, classes=classes).load()
    assert data.class_names == names
    assert data.y.tolist() == y


def test_images_may_lie_elsewhere_or_in_a_zip(listed, tmp_path):
    put(tmp_path / "there", dog__0_png=image(77), cat__1_png=image(78))
    assert listed(ROWS, root=str(tmp_path / "there")).load().x[:, 0, 0, 0].tolist() == [77, 78]
    path = packed(tmp_path / "im.zip", {"dog/0.png": image(5), "cat/1.png": image(6)})
    assert listed(ROWS, root=str(path)).load().x[:, 0, 0, 0].tolist() == [5, 6]


def test_the_fingerprint_follows_the_list_and_its_images(listed, tmp_path):
    first = listed(ROWS).fingerprint()
    two_classes(tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(image(250))  # not in the list
    source = ImageCsv(str(tmp_path / "list.csv"))
    assert source.fingerprint() != first  # the listed ones were written again, so have another time
    second = source.fingerprint()
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    assert ImageCsv(str(tmp_path / "list.csv")).fingerprint() == second
    (tmp_path / "cat" / "1.png").unlink()
    assert ImageCsv(str(tmp_path / "list.csv")).fingerprint() != second
    assert ImageCsv(str(tmp_path / "list.csv"), label_column="label", mode="L").fingerprint() != second
