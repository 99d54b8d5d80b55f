import numpy as np
import pytest

from fedimb.data.arrays import SourceData
from fedimb.data.check import describe_cut, guess_source, load_source, read_source
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register


class Toy:
    """Rows as asked for; refuses or skips one."""

    def __init__(self, path: str, rows: int, names: tuple[str, ...] = ("a", "b"), on_bad: str = "refuse") -> None:
        self.path, self.rows, self.names, self.on_bad = path, rows, names, on_bad

    def load(self) -> SourceData:
        if self.on_bad == "refuse":
            raise DataError(f"{self.path} row 3: no label")
        y = np.arange(self.rows, dtype=np.int64) % len(self.names)
        return SourceData(
            np.zeros((self.rows, 2), np.float32), y, self.names, skipped=(f"{self.path} row 3: no label",)
        )


@pytest.fixture
def toy(toys):
    register("source", "toy_file")(Toy)


def test_a_bare_file_is_read_with_the_settings_given(toy, tmp_path):
    file = tmp_path / "a.xyz"
    file.touch()
    words = ["rows=7", "data.source.names=[x, y, z]", "data.on_bad=skip"]
    name, data, group = read_source(str(file), words, "toy_file")
    assert (name, group, data.class_names, len(data.y)) == ("toy_file", None, ("x", "y", "z"), 7)
    assert data.skipped == (f"{file} row 3: no label",)
    with pytest.raises(DataError, match="row 3: no label"):
        read_source(str(file), ["rows=7"], "toy_file")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "needs rows: give rows="),
        (["rows"], "cannot read 'rows': expected key=value"),
        (["rows=[1"], "cannot read 'rows=\\[1'"),
        (["rows=many"], "rows='many'"),
        (["rows=3", "row=3"], "Did you mean 'rows'"),
    ],
)
def test_wrong_settings_name_the_remedy(toy, tmp_path, words, says):
    with pytest.raises(ConfigError, match=says):
        read_source(str(tmp_path), words, "toy_file")


def test_a_source_without_a_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="source 'digits' does not read a file"):
        read_source(str(tmp_path), [], "digits")


def test_what_reads_a_file_is_told_by_the_file(tmp_path):
    assert guess_source(tmp_path) == "image_folder"
    assert guess_source(tmp_path / "a.ZIP") == "image_folder"
    np.savez(tmp_path / "m.npz", train_images=np.zeros(2), train_labels=np.zeros(2))
    np.savez(tmp_path / "e.npz", x=np.zeros(2), y=np.zeros(2))
    assert [guess_source(tmp_path / name) for name in ("m.npz", "e.npz")] == ["npz", "embeddings_npz"]
    (tmp_path / "t.csv").write_text("age,label\n3,sick\n")
    (tmp_path / "i.csv").write_text("file,label\na/b.PNG,sick\n")
    (tmp_path / "empty.csv").write_text("")
    assert [guess_source(tmp_path / f"{name}.csv") for name in ("t", "i", "empty")] == [
        "tabular_csv",
        "image_csv",
        "tabular_csv",
    ]
    (tmp_path / "bad.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"bad\.npz is not an \.npz file"):
        guess_source(tmp_path / "bad.npz")
    assert [guess_source(tmp_path / f"a{end}") for end in (".parquet", ".arff", ".DAT", ".json")] == [
        *["tabular_csv"] * 3,
        "leaf_json",
    ]
    (tmp_path / "train").mkdir()
    (tmp_path / "train/0.npz").touch()
    assert guess_source(tmp_path) == "shards"
    with pytest.raises(ConfigError, match=r"cannot tell how to read .*a\.xyz.*--source NAME Valid: .*digits"):
        guess_source(tmp_path / "a.xyz")


def test_a_data_group_is_read_and_cut(tmp_path, digits):
    import yaml

    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(digits))
    name, data, group = read_source(str(file))
    assert (name, len(data.y), group) == ("digits", 1797, digits)
    assert describe_cut(group).startswith("cut with seed 0: 600 rows to test, 305 to train (0 of them for validation)")
    file.write_text(yaml.safe_dump({"defaults": [{"override /model": "mlp"}], "data": digits, "local": {"lr": 0.1}}))
    assert read_source(str(file))[2] == digits
    with pytest.raises(DataError, match=r"n_max that works"):
        describe_cut({**digits, "n_max": 5000})
    with pytest.raises(ConfigError, match="write settings there"):
        read_source(str(file), ["rows=3"])
    file.write_text(yaml.safe_dump({**digits, "imbalance_facto": 3}))
    with pytest.raises(ConfigError, match=r"Did you mean 'data\.imbalance_factor'"):
        read_source(str(file))


@pytest.mark.parametrize(("text", "says"), [("a: [", "cannot be read as YAML"), ("- digits", "is not a mapping")])
def test_an_unreadable_group_is_refused_in_one_line(tmp_path, text, says):
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(ConfigError, match=says) as refused:
        read_source(str(tmp_path / "mine.yml"))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read_source(str(tmp_path / "nowhere.yaml"))


def test_a_source_that_loads_something_else_is_refused(toys):
    class Listed:
        def load(self) -> list[int]:
            return [1, 2]

    register("source", "toy_list")(Listed)
    with pytest.raises(DataError, match="source 'toy_list' loads a list, not SourceData"):
        load_source({"name": "toy_list", "on_bad": "skip"})
