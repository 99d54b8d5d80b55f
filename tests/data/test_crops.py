"""Boxes to crops: the right pixels under the right name, and whatever is doubtful is refused with its place."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedimb.cli import main
from fedimb.data.importing.boxes import read_boxes
from fedimb.data.importing.crops import CropSettings, overlap, write_crops
from fedimb.data.problems import Problems
from fedimb.data.sources.image_csv import ImageCsv
from fedimb.data.sources.image_files import open_files
from fedimb.errors import ConfigError, DataError

CAT, DOG = (0, 0, 6, 4), (10, 5, 20, 15)
"""Where the pictures of `picture` hold a cat of red 200 and a dog of green 100: left, upper, right, lower."""


def picture(folder: Path, name: str, size: tuple[int, int] = (20, 15)) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[CAT[1] : CAT[3], CAT[0] : CAT[2], 0] = 200
    pixels[DOG[1] : DOG[3], DOG[0] : DOG[2], 1] = 100
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def voc(folder: Path, name: str, objects: str, size: str = "<width>20</width><height>15</height>") -> None:
    folder.mkdir(exist_ok=True)
    text = f"<annotation><filename>{name}.png</filename><size>{size}</size>{objects}</annotation>"
    (folder / f"{name}.xml").write_text(text)


def voc_object(label: str, edges: tuple[int, ...], more: str = "") -> str:
    box = "".join(
        f"<{side}>{edge}</{side}>" for side, edge in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True)
    )
    return f"<object><name>{label}</name>{more}<bndbox>{box}</bndbox></object>"


VOC_CAT, VOC_DOG = voc_object("cat", (1, 1, 6, 4)), voc_object("dog", (11, 6, 20, 15))


def coco(file: Path, boxes: list[dict], **changed: object) -> Path:
    """Two pictures, categories 90, 7 and 3 (no box), the first ids of a list being others."""
    tree: dict[str, object] = {
        "images": [
            {"id": 44, "file_name": "b.png", "width": 20, "height": 15, "location": "lake", "seq": "s1"},
            {"id": 2, "file_name": "a.png", "width": 20, "height": 15, "location": "wood", "seq": "s1"},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 3, "name": "bird"}],
        "annotations": [{"id": i, **one} for i, one in enumerate(boxes)],
    }
    file.write_text(json.dumps(tree | changed))
    return file


def coco_box(image: object = 2, category: object = 7, edges: tuple[float, ...] = CAT, **more: object) -> dict:
    left, upper, right, lower = edges
    return {"image_id": image, "category_id": category, "bbox": [left, upper, right - left, lower - upper], **more}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "pictures", name)
    return tmp_path / "pictures"


def cut(path: Path, pictures: Path, on_bad: str = "refuse", settings: CropSettings | None = None, **asked):
    """(what was cut, rows of the list, crops [h, w, 3] in its order)."""
    problems, to = Problems(on_bad), path.parent / "crops"
    done = write_crops(
        read_boxes(path, problems, **asked), open_files(pictures), to, settings or CropSettings(), problems
    )
    rows = list(csv.DictReader(io.StringIO((to / "crops.csv").read_text())))
    return done, rows, [np.asarray(Image.open(to / row["path"])) for row in rows]


def one_colour(crop: np.ndarray, channel: int, value: int, width: int, height: int) -> bool:
    expected = np.zeros((height, width, 3), np.uint8)
    expected[..., channel] = value
    return bool(np.array_equal(crop, expected))


def test_vocs_boxes_count_from_one_and_hold_their_last_pixel(tmp_path: Path, pictures: Path) -> None:
    voc(tmp_path / "xml", "a", VOC_CAT + VOC_DOG)
    done, rows, crops = cut(tmp_path / "xml", pictures)
    assert [row["label"] for row in rows] == ["cat", "dog"]
    assert one_colour(crops[0], 0, 200, 6, 4)
    assert one_colour(crops[1], 1, 100, 10, 10)
    assert {row["patient"] for row in rows} == {"a.png"}
    assert done.counts == {"cat": 1, "dog": 1}


def test_cocos_categories_go_by_name_whatever_their_ids_and_order(tmp_path: Path, pictures: Path) -> None:
    file = coco(tmp_path / "i.json", [coco_box(44, 90, DOG), coco_box("2", 7), coco_box(44, 7)])
    done, rows, crops = cut(file, pictures, site="location", patient="seq")
    assert [(row["label"], row["picture"], row["site"]) for row in rows] == [
        ("dog", "b.png", "lake"),
        ("cat", "b.png", "lake"),
        ("cat", "a.png", "wood"),
    ]
    assert {row["patient"] for row in rows} == {"s1"}
    assert one_colour(crops[0], 1, 100, 10, 10)
    assert one_colour(crops[2], 0, 200, 6, 4)
    assert done.counts == {"dog": 1, "cat": 2, "bird": 0}


def test_the_list_is_read_as_pictures_and_crops_of_a_picture_have_one_patient(tmp_path: Path, pictures: Path) -> None:
    file = coco(tmp_path / "i.json", [coco_box(44, 90, DOG), coco_box(44, 7), coco_box(2, 7), coco_box(2, 90, DOG)])
    cut(file, pictures)
    data = ImageCsv(path=str(tmp_path / "crops" / "crops.csv"), size=(4, 4)).load()
    assert data.class_names == ("cat", "dog")
    assert data.x.shape == (4, 3, 4, 4)
    assert data.x[data.y == 0][:, 0].min() == 200
    assert data.x[data.y == 1][:, 1].max() == 100
    assert data.patients is not None
    assert len(set(data.patients[:2].tolist())) == len(set(data.patients[2:].tolist())) == 1
    assert len(set(data.patients.tolist())) == 2


def test_context_is_added_as_far_as_the_picture_goes(tmp_path: Path, pictures: Path) -> None:
    file = coco(tmp_path / "i.json", [coco_box(2, 7), coco_box(2, 90, (12, 7, 16, 11))])
    _, rows, crops = cut(file, pictures, settings=CropSettings(context=0.5))
    assert [row["box"] for row in rows] == ["0 0 9 6", "10 5 18 13"]
    assert [crop.shape[:2] for crop in crops] == [(6, 9), (8, 8)]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ((15, 5, 25, 10), r"15,5 to 25,10 reaches beyond the picture of 20 x 15"),
        ((-4, 0, 3, 3), r"reaches beyond"),
        ((30, 30, 40, 40), r"reaches beyond"),
        ((5, 5, 5, 9), r"no area"),
        ((5, 9, 7, 2), r"no area"),
    ],
)
def test_a_box_that_is_not_in_its_picture_is_refused(
    tmp_path: Path, pictures: Path, edges: tuple[int, ...], message: str
) -> None:
    file = coco(tmp_path / "i.json", [coco_box(), coco_box(edges=edges)])
    with pytest.raises(DataError, match=rf"i.json annotation 1: .*{message}"):
        cut(file, pictures)
    assert not (tmp_path / "crops").exists()
    assert not list(tmp_path.glob(".crops*"))
    done, rows, _ = cut(file, pictures, "skip")
    assert len(rows) == 1
    assert done.skipped[0].startswith("i.json annotation 1:")


def test_a_box_a_fraction_of_a_pixel_beyond_is_cut_at_the_edge_and_counted(tmp_path: Path, pictures: Path) -> None:
    done, rows, _ = cut(coco(tmp_path / "i.json", [coco_box(edges=(10.2, 5.5, 20.6, 15.4))]), pictures)
    assert rows[0]["box"] == "10 5 20 15"
    assert done.trimmed == 1


def test_annotations_of_another_size_of_picture_are_refused(tmp_path: Path, pictures: Path) -> None:
    voc(tmp_path / "xml", "a", VOC_CAT, "<width>40</width><height>30</height>")
    with pytest.raises(DataError, match=r"'a.png' is 20 x 15 pixels, annotated as 40 x 30: its boxes are of another"):
        cut(tmp_path / "xml", pictures)
    voc(tmp_path / "xml", "a", VOC_CAT, "<width>15</width><height>20</height>")
    with pytest.raises(DataError, match="Exif"):
        cut(tmp_path / "xml", pictures)
    voc(tmp_path / "xml", "a", VOC_CAT, "<width>0</width><height>0</height>")  # not known
    assert len(cut(tmp_path / "xml", pictures)[1]) == 1


def turned_picture(folder: Path, orientation: int) -> None:
    """Save a.png so that it is shown as `picture` made it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}[orientation]
    with Image.open(folder / "a.png") as image:
        stored = image.transpose(back)
    stored.save(folder / "a.png", exif=exif)


def test_boxes_on_a_picture_turned_by_exif_are_of_the_shown_one_if_its_size_says_so(
    tmp_path: Path, pictures: Path
) -> None:
    turned_picture(pictures, 6)
    voc(tmp_path / "xml", "a", VOC_CAT)  # annotated as 20 x 15; stored are 15 x 20
    _, _, crops = cut(tmp_path / "xml", pictures)
    assert one_colour(crops[0], 0, 200, 6, 4)


@pytest.mark.parametrize(("orientation", "size"), [(6, (0, 0)), (3, (20, 15))], ids=["no size", "same size"])
def test_boxes_that_may_be_of_the_stored_picture_are_refused(
    tmp_path: Path, pictures: Path, orientation: int, size: tuple[int, int]
) -> None:
    turned_picture(pictures, orientation)
    voc(tmp_path / "xml", "a", VOC_CAT, f"<width>{size[0]}</width><height>{size[1]}</height>")
    with pytest.raises(DataError, match=rf"Exif entry \(orientation {orientation}\).*as its boxes were drawn, without"):
        cut(tmp_path / "xml", pictures)


def test_vocs_files_that_count_from_zero_are_noticed_and_read_when_that_is_said(tmp_path: Path, pictures: Path) -> None:
    voc(tmp_path / "xml", "a", voc_object("cat", (0, 0, 5, 3)))
    with pytest.raises(DataError, match=r"a.xml object 1: xmin or ymin is below 1, .* give --origin 0"):
        cut(tmp_path / "xml", pictures)
    _, _, crops = cut(tmp_path / "xml", pictures, origin=0)
    assert one_colour(crops[0], 0, 200, 6, 4)


def test_an_object_annotated_twice_counts_once_and_is_refused_under_two_classes(tmp_path: Path, pictures: Path) -> None:
    nearly = (0.1, 0, 6, 4)
    done, rows, _ = cut(coco(tmp_path / "i.json", [coco_box(), coco_box(edges=nearly), coco_box(44)]), pictures)
    assert len(rows) == 2
    assert done.left_out["annotated twice"] == 1
    other = coco(tmp_path / "j.json", [coco_box(), coco_box(category=90, edges=nearly), coco_box(44)])
    with pytest.raises(DataError, match=r"annotation 1: the same box as in j.json annotation 0: 'dog' here, 'cat'"):
        write_crops(read_boxes(other, p := Problems()), open_files(pictures), tmp_path / "no", CropSettings(), p)
    skipping = Problems("skip")
    done = write_crops(read_boxes(other, skipping), open_files(pictures), tmp_path / "some", CropSettings(), skipping)
    assert done.counts == {"dog": 0, "cat": 1, "bird": 0}, "neither of the two is used"


def test_groups_and_difficult_objects_are_left_out_and_counted(tmp_path: Path, pictures: Path) -> None:
    done, rows, _ = cut(coco(tmp_path / "i.json", [coco_box(), coco_box(2, 90, DOG, iscrowd=1)]), pictures)
    assert (len(rows), dict(done.left_out)["a group (iscrowd)"]) == (1, 1)
    voc(tmp_path / "xml", "a", VOC_CAT + voc_object("dog", (11, 6, 20, 15), "<difficult>1</difficult>"))
    folder = tmp_path / "xml"
    problems = Problems()
    found = read_boxes(folder, problems)
    once = write_crops(found, open_files(pictures), tmp_path / "one", CropSettings(), problems)
    both = write_crops(found, open_files(pictures), tmp_path / "two", CropSettings(difficult=True), problems)
    assert (once.counts, once.left_out["marked difficult"]) == ({"cat": 1, "dog": 0}, 1)
    assert both.counts == {"cat": 1, "dog": 1}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"categories": [{"id": 7, "name": "cat"}, {"id": 7, "name": "dog"}]}, "two categories have the id 7"),
        ({"categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "cat"}]}, "two categories have the name 'cat'"),
        ({"images": [{"id": 2, "file_name": "a.png"}, {"id": 3, "file_name": "a.png"}]}, "two images have the name"),
        ({"categories": [{"id": 8, "name": "cat"}]}, r"annotation 0: category 7 is not one of the categories \(8"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, "annotation 0: image 2 is not one of the images"),
        ({"annotations": [{"id": 0, "image_id": 2, "category_id": 7}]}, "annotation 0: it has no bbox"),
        ({"annotations": [{"id": 0, "image_id": 2, "category_id": 7, "bbox": [0, 0, None, 4]}]}, "it has no bbox"),
        ({"categories": None}, "lacks the list categories"),
    ],
)
def test_cocos_ids_that_contradict_each_other_are_refused(
    tmp_path: Path, pictures: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        cut(coco(tmp_path / "i.json", [coco_box()], **changed), pictures)


def test_a_picture_that_is_missing_or_annotated_in_two_files_is_named(tmp_path: Path, pictures: Path) -> None:
    voc(tmp_path / "xml", "c", VOC_CAT)
    with pytest.raises(DataError, match=r"picture 'c.png': is not in"):
        cut(tmp_path / "xml", pictures)
    voc(tmp_path / "xml", "c", VOC_CAT)
    (tmp_path / "xml" / "d.xml").write_text((tmp_path / "xml" / "c.xml").read_text())
    with pytest.raises(DataError, match=r"d.xml and c.xml annotate the same picture"):
        cut(tmp_path / "xml", pictures)


def test_settings_out_of_range_and_unknown_classes_are_refused(tmp_path: Path, pictures: Path) -> None:
    for settings in ({"context": -1}, {"context": float("nan")}, {"min_side": 0}, {"mode": "CMYK"}):
        with pytest.raises(ConfigError, match="--"):
            CropSettings(**settings)
    file = coco(tmp_path / "i.json", [coco_box(), coco_box(44, 90, DOG)])
    with pytest.raises(ConfigError, match="--classes bear: there are dog, cat, bird"):
        cut(file, pictures, settings=CropSettings(classes=("dog", "bear")))
    voc(tmp_path / "xml", "a", VOC_CAT)
    with pytest.raises(ConfigError, match="name no 'location'"):
        read_boxes(tmp_path / "xml", Problems(), site="location")
    with pytest.raises(DataError, match="its image has no 'place'"):
        cut(tmp_path / "i.json", pictures, site="place")


def test_of_some_classes_a_picture_of_others_is_not_without_a_box(tmp_path: Path, pictures: Path) -> None:
    file = coco(tmp_path / "i.json", [coco_box(), coco_box(edges=DOG), coco_box(44, 90, DOG)])
    done, rows, _ = cut(file, pictures, settings=CropSettings(classes=("dog",)))
    assert (done.without, done.pictures, done.counts) == (0, 1, {"dog": 1})
    assert [row["label"] for row in rows] == ["dog"]
    assert +done.left_out == {"of classes not asked for": 2}


def test_an_object_of_two_classes_is_doubted_whichever_is_asked_for(tmp_path: Path, pictures: Path) -> None:
    both = [coco_box(edges=DOG), coco_box(category=90, edges=DOG), coco_box(44, 90, DOG)]
    file = coco(tmp_path / "i.json", both)
    for asked in (("dog",), ("cat",), ("cat", "dog"), None):
        with pytest.raises(DataError, match=r"the same box as in .*: 'dog' here, 'cat' there"):
            cut(file, pictures, settings=CropSettings(classes=asked))
    cut(file, pictures, "skip", CropSettings(classes=("dog",)))
    (tmp_path / "again").mkdir()
    twice = coco(tmp_path / "again" / "j.json", [coco_box(edges=CAT), coco_box(edges=CAT), coco_box(44, 90, DOG)])
    done, _, _ = cut(twice, pictures, settings=CropSettings(classes=("dog",)))
    assert done.left_out["annotated twice"] == 0  # of the classes that are cut


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert overlap((0, 0, 4, 2), (2, 0, 6, 2)) == pytest.approx(4 / 12)


def test_the_command_says_what_was_left_out_and_does_not_overwrite(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    coco(tmp_path / "i.json", [coco_box(), coco_box(2, 90, DOG, iscrowd=1)])
    words = ["data", "crops", "i.json", "--images", "pictures", "--to", "crops"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for line in ("cat         1", "1 crops of 1 pictures", "1 boxes a group (iscrowd)", "1 pictures without a box"):
        assert line.replace("         ", "") in said.replace("         ", "")
    assert "1 crops have a side below 8 pixels" in said
    assert main(words) != 0
    assert "is there already" in capsys.readouterr().err
