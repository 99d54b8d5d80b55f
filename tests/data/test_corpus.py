"""Real public files: scikit-learn's, Pillow's, and the shipped data sets below $FEDIMB_DATA_DIR, by their counts."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedimb import registry
from fedimb.config.catalogue import Catalogue
from fedimb.config.compose import compose
from fedimb.config.load import config_sha
from fedimb.config.validate import GIVEN, validate
from fedimb.data.check import load_source, read_source
from fedimb.data.config import ABOUT, DataConfig
from fedimb.data.labels import class_counts
from fedimb.data.prepare import prepare
from fedimb.data.sources.pictures import decode
from fedimb.errors import DataError
from fedimb.report.html.run import command

GROUPS = Path(__file__).parents[2] / "configs" / "data"
ROOT = Path(os.environ.get("FEDIMB_DATA_DIR") or "/nowhere")

# Name -> (classes and their rows, shape of a row, rows of the official test part, rows of each class by site). Rows
# are those of the README beside the data; columns left out and one-hot ones change a table's width.
FAST = {
    "glass": ([76, 70, 29, 17, 13, 9], (9,), None, None),
    "yeast": ([463, 429, 244, 163, 51, 44, 35, 30, 20, 5], (8,), None, None),
    "ecoli": ([143, 77, 52, 35, 20, 5, 2, 2], (7,), None, None),
    "dermatology": ([111, 71, 60, 48, 48, 20], (34,), None, None),
    "page_blocks": ([4913, 329, 115, 87, 28], (10,), None, None),
    "hcv": ([533, 30, 24, 21, 7], (18,), None, None),
    "abalone": ([1323, 959, 754, 432, 374, 199, 74, 62], (10,), None, None),
    "thyroid": ([6666, 368, 166], (21,), 3428, None),
    "wine_quality": ([30, 216, 2138, 2836, 1079, 193, 5], (11,), None, {"red": 1599, "white": 4898}),
    "flags": (
        [153, 91, 99, 91, 146, 52, 26],
        (32,),
        None,
        {"africa": 52, "asia": 39, "europe": 35, "north_america": 31, "oceania": 20, "south_america": 17},
    ),
    "yeast_functions": (
        [762, 1038, 983, 862, 722, 597, 428, 480, 178, 253, 289, 1816, 1799, 34],
        (103,),
        None,
        None,
    ),
    "pneumonia_tail": ([388 + 234, 3494 + 390], (1, 28, 28), 624, None),
    "brain_mri_64": ([798 + 83, 707 + 103, 226 + 75, 796 + 34], (1, 64, 64), 295, None),
    "ecg5000": ([2919, 1767, 96, 194, 24], (1, 140), 4500, None),
    "fiftywords": ([109, 91, 61, 54], (1, 270), 455, None),
    "uci_har": ([1722, 1544, 1406, 1777, 1906, 1944], (9, 128), 2947, None),
}
SLOW = {
    "wbc": ([209, 90, 63, 34, 4], (3, 32, 32), None, {"cellavision": 100, "tecom": 300}),
    "kr_vs_k": (
        [4553, 4194, 3597, 2854, 2796, 2166, 1985, 1712, 1433, 683, 592, 471, 390, 246, 198, 81, 78, 27],
        (40,),
        None,
        None,
    ),
    "mnist": ([6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958], (1, 28, 28), 10000, None),
    "fashion_mnist": ([7000] * 10, (1, 28, 28), 10000, None),
    "nsl_kdd": ([77054, 53387, 14077, 3880, 119], (112,), 22544, None),
    "fars": ([42116, 20007, 15072, 13890, 8674, 901 + 299 + 9], (235,), None, "division"),
}


def files_of(name: str) -> list[str]:
    """The files that a shipped data set reads."""
    source = data_group(name)["source"]
    return [*source.get("files", []), *(source[key] for key in ("path", "root") if key in source)]


def data_group(name: str) -> dict:
    """The data group of a YAML, also of one that sets more than that."""
    group = yaml.safe_load((GROUPS / f"{name}.yaml").read_text(encoding="utf-8"))
    return group.get("data", group)


def lacking(name: str) -> str:
    """Why a set cannot be read here, in words; empty if it can."""
    missing = [file for file in files_of(name) if not (ROOT / file).is_file()]
    return f"{missing[0]} is not in $FEDIMB_DATA_DIR" if missing else ""


def each(sets: dict) -> list:
    return [pytest.param(name, *facts, id=name) for name, facts in sets.items()]


def check_counts(name: str, rows: list, shape: tuple, test: int | None, sites: object) -> None:
    """Read a shipped set without the cache and compare it with the README beside the data."""
    if reason := lacking(name):
        pytest.skip(reason)
    _, data, group = read_source(str(GROUPS / f"{name}.yaml"))
    assert class_counts(data.y, data.targets, len(data.class_names), slice(None)).tolist()[: len(rows)] == rows
    assert data.x.shape[1:] == shape
    assert (None if data.official_test is None else int(data.official_test.sum())) == test
    if sites is None:
        assert data.sites is None
    elif sites == "division":
        assert len(data.site_names) == 9
    else:
        assert dict(zip(data.site_names, np.bincount(data.sites).tolist(), strict=True)) == sites
    assert group is not None


@pytest.mark.parametrize(("name", "rows", "shape", "test", "sites"), each(FAST))
def test_small_sets_have_the_counts_of_their_readme(name, rows, shape, test, sites):
    check_counts(name, rows, shape, test, sites)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows", "shape", "test", "sites"), each(SLOW))
def test_large_sets_have_the_counts_of_their_readme(name, rows, shape, test, sites):
    check_counts(name, rows, shape, test, sites)


def cut(name: str) -> None:
    """Split and partition a shipped set as a run with seed 0 does."""
    if reason := lacking(name):
        pytest.skip(reason)
    config = validate(compose([f"data={name}"]))
    federation = prepare(config.data, config.partition, config.clients.count, 0)
    rows = federation.store.class_counts(np.concatenate([federation.test, *federation.train]))
    assert (rows > 0).all()


@pytest.mark.parametrize("name", ["ecoli", "flags", "wine_quality"])
def test_small_sets_are_cut_as_their_yaml_says(name):
    cut(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*FAST, *SLOW) if name not in ("ecoli", "flags", "wine_quality")])
def test_all_sets_are_cut_as_their_yaml_says(name):
    cut(name)


@pytest.mark.slow
def test_fars_by_state():
    if reason := lacking("fars"):
        pytest.skip(reason)
    config = validate(compose(["data=fars", "data.source.site_column=state", "clients.count=51"]))
    federation = prepare(config.data, config.partition, config.clients.count, 0)
    assert sum(len(rows) > 0 for rows in federation.train) == 51
    columns = federation.store.columns.names if federation.store.columns else ()
    assert not [name for name in columns if name.startswith(("state", "division", "race", "hispanic"))]


def test_every_set_of_the_readme_has_a_yaml_that_says_where_it_is_from():
    shipped = sorted(name for name in Catalogue().options("data") if data_group(name).get("about"))
    assert shipped == sorted([*FAST, *SLOW])
    for name in shipped:
        raw = yaml.safe_load((GROUPS / f"{name}.yaml").read_text(encoding="utf-8"))
        config = DataConfig.parse(data_group(name))
        assert list(config.about) == list(ABOUT)
        args = {key: value for key, value in config.source.items() if key != "name"}
        registry.check_args("source", config.source["name"], args, given=GIVEN["source"])
        for override in raw.get("defaults", []):
            ((key, option),) = override.items()
            assert option in Catalogue().options(key.removeprefix("override /"))


def test_what_is_said_of_a_data_set_does_not_change_the_hash():
    config = validate(compose(["data=glass"]))
    silent = {key: value for key, value in config.data.items() if key != "about"}
    assert config.data["about"]["licence"] == "CC BY 4.0 (UCI)"
    assert config_sha(config) == config_sha(config.model_copy(update={"data": silent}))
    assert "about" not in compose(["data=glass", "data.source.files=[mine.csv]"])["data"]


def test_a_report_names_the_shipped_set():
    config = validate(compose(["data=glass", "seed=3", "engine=inline"])).model_dump()
    assert command(config).startswith("fedimb run data=glass ")
    assert command(config).endswith(" seed=3")
    other = compose(["data=glass", "data.source.files=[mine.csv]", "engine=inline"])
    assert "data=glass" not in command(validate(other).model_dump())


def test_no_committed_figure_rests_on_data_without_a_licence():
    assert "publish no figure" in data_group("brain_mri_64")["about"]["licence"]
    repository = Path(__file__).parents[2]
    named = [
        path
        for folder in ("experiments", "docs")
        for path in (repository / folder).rglob("*")
        if path.suffix in (".md", ".yaml", ".json", ".csv", ".py", ".sh") and "brain_mri" in path.read_text("utf-8")
    ]
    assert [path.name for path in named if path != repository / "docs" / "data.md"] == []


@pytest.mark.parametrize("name", ["glass", "mnist", "wbc"])
def test_without_the_folder_one_line_says_what_to_set(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDIMB_DATA_DIR", raising=False)
    with pytest.raises(DataError, match="set FEDIMB_DATA_DIR to the folder that holds it") as caught:
        load_source(data_group(name)["source"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_scikit_learns_sets_as_table_array_and_embeddings(name, tmp_path):
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    counts = np.bincount(bunch.target).tolist()
    names = [str(one) for one in bunch.target_names]
    columns = [*(str(one).replace(" ", "_") for one in bunch.feature_names), "label"]
    rows = [",".join([*map(repr, map(float, x)), names[y]]) for x, y in zip(bunch.data, bunch.target, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(columns), *rows]))
    np.savez(tmp_path / "t.npz", x=bunch.data.astype(np.float32), y=bunch.target)
    for source in (
        {"name": "tabular_csv", "files": [str(tmp_path / "t.csv")], "target": "label", "classes": names},
        {"name": "npz", "path": str(tmp_path / "t.npz"), "class_names": names},
        {"name": "embeddings_npz", "path": str(tmp_path / "t.npz"), "class_names": names},
    ):
        data = load_source(source)
        assert np.bincount(data.y).tolist() == counts
        assert data.class_names == tuple(names)
        assert np.allclose(data.x * data.scale, bunch.data, rtol=1e-6)


def test_scikit_learns_photographs(tmp_path):
    from sklearn.datasets import load_sample_images

    bunch = load_sample_images()
    for file, pixels in zip(bunch.filenames, bunch.images, strict=True):
        folder = tmp_path / Path(file).stem
        folder.mkdir()
        (folder / Path(file).name).write_bytes(Path(file).read_bytes())
        assert pixels.shape == (427, 640, 3)
    data = load_source({"name": "image_folder", "path": str(tmp_path)})
    assert data.class_names == ("china", "flower")
    assert np.array_equal(data.x, np.stack(bunch.images).transpose(0, 3, 1, 2))


def test_pillows_pictures_are_read_or_refused_in_one_line(tmp_path):
    """Pillow's own test pictures, where its sources are at hand: every one is decoded or a bad row with a reason."""
    import PIL

    folder = Path(PIL.__file__).parents[1] / "Tests" / "images"
    if not folder.is_dir():
        pytest.skip("Pillow's test pictures are not installed (its wheels lack them)")
    said = [said_of(file.read_bytes()) for file in sorted(folder.glob("*.png"))]
    assert "" in said
    assert not [line for line in said if "\n" in line]


def said_of(data: bytes) -> str:
    """Why a picture cannot be used; empty if it is decoded."""
    try:
        assert decode(data, "RGB", (8, 8)).shape == (3, 8, 8)
    except DataError as error:
        return str(error)
    return ""
