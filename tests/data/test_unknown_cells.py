"""Single cells that nobody labelled, of rows with several labels: how a source says so, and what they count for."""

import numpy as np
import pytest
import torch
from small_runs import config

from fedimb.data.federation import Federation
from fedimb.data.findings.look import look_at
from fedimb.data.inputs import Inputs
from fedimb.data.labels import UNKNOWN_CELL, class_counts, complete, known_cells, primary_class
from fedimb.data.new_rows import Expected
from fedimb.data.prepare import prepare
from fedimb.data.problems import Problems
from fedimb.data.sources.cell_map import CellMap
from fedimb.data.sources.npz import Npz
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.data.split_file import rows_sha
from fedimb.data.store import Store
from fedimb.errors import ConfigError, DataError
from fedimb.report.describe import describe, describe_source

U = UNKNOWN_CELL
TABLE = "age,mass,nodule,site\n50,1,,p\n60,0,0,q\n70,-1,1.0,q\n80,,-1,p\n"
MAP = {"": "unknown", -1: "unknown"}


def table(folder, text=TABLE, **args):
    (folder / "t.csv").write_text(text, encoding="utf-8")
    given = {"target": ["mass", "nodule"], "site_column": "site", "cell_map": MAP} | args
    return TabularCsv(str(folder / "t.csv"), **given)


def test_no_label_is_said_of_a_row_only_if_every_cell_says_so():
    targets = np.array([[1, U], [0, 0], [0, U], [U, U], [1, 1]], np.uint8)
    y, full, names = complete(targets, ["a", "b"])
    assert names == ("a", "b", "none")
    assert full[:, 2].tolist() == [0, 1, U, U, 0]
    assert y.tolist() == [0, 2, 2, 2, 1]  # b is rarer than a; of a row without a known label, "none" stands for it
    assert class_counts(y, full, 3, slice(None)).tolist() == [2, 1, 1]
    np.testing.assert_array_equal(known_cells(full)[2], [0, np.nan, np.nan])
    own = np.array([[U, 1], [0, U], [0, 0], [1, U], [U, 0]], np.uint8)  # the source has the column "No Finding" itself
    y, full, names = complete(own, ["a", "No Finding"])
    assert names == ("a", "No Finding")
    assert full.tolist() == [[U, 1], [0, 1], [0, 1], [1, 0], [U, 0]]  # only what follows is filled in


def test_without_a_class_for_no_label_the_most_frequent_unknown_class_stands_for_a_row():
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0], [0, U, U], [U, U, 0]], np.uint8)
    assert primary_class(targets).tolist() == [0, 1, 2, 0, 1, 0]
    assert complete(targets, ["a", "b", "c"])[2] == ("a", "b", "c")


def test_a_table_says_how_unknown_is_written_and_columns_may_differ(tmp_path):
    data = table(tmp_path).load()
    assert data.class_names == ("mass", "nodule", "none")
    assert data.targets.tolist() == [[1, U, 0], [0, 0, 1], [U, 1, 0], [U, U, U]]
    assert "unknown cells: mass 2, nodule 2, none 1" in describe_source(data)
    # CheXpert's rules: what no report mentions is a negative, and an uncertain finding is what the column says.
    mixed = table(tmp_path, cell_map={"empty": 0, -1: "unknown", "mass": {-1: 1}}).load()
    assert mixed.targets.tolist() == [[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, U, U]]
    coded = table(tmp_path, "age,mass,nodule,site\n1,yes,2,p\n2,no,1,q\n", cell_map={"yes": 1, "no": 0, 2: 0}).load()
    assert coded.targets.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            None,
            r"t.csv row 2: target 'nodule' is missing; if it means that .*, give cell_map=\{empty: unknown\}",
        ),
        ({"": "unknown"}, r"t.csv row 4: target 'mass' is '-1', neither 0 nor 1; if .* cell_map=\{-1: unknown\}"),
        ({"nodule": {"": "unknown"}, -1: "unknown"}, "t.csv row 5: target 'mass' is missing"),
    ],
)
def test_an_undeclared_cell_is_refused_with_file_row_column_and_remedy(tmp_path, given, says):
    with pytest.raises(DataError, match=says):
        table(tmp_path, cell_map=given).load()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"cell_map": {}}, "give what each value means"),
        ({"cell_map": {-1: "unknwon"}}, "-1 means 'unknwon': give 0, 1 or unknown"),
        ({"cell_map": {1: 0, "1.0": 1}}, "has '1' twice"),
        ({"cell_map": {"mas": {-1: 1}}}, "names column 'mas', which is no label. Did you mean 'mass'?"),
        ({"target": "mass"}, "cell_map is for several target columns"),
    ],
)
def test_a_map_that_is_none_is_refused(tmp_path, args, says):
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, **args)
    assert says in str(caught.value)


def test_arrays_hold_unknown_cells_as_nan_or_a_number(tmp_path):
    x, y = np.zeros((3, 2), np.float32), np.array([[1, np.nan], [0, 1], [-1, 0]])
    np.savez(tmp_path / "d.npz", x=x, y=y)
    path = str(tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"y\[0\]: nan in column 1 is neither 0 nor 1; .* cell_map=\{nan: unknown\}"):
        Npz(path).load()
    data = Npz(path, class_names=["a", "b"], cell_map={"nan": "unknown", "a": {-1: 1}}).load()
    assert data.targets.tolist() == [[1, U], [0, 1], [1, 0]]
    assert data.class_names == ("a", "b")
    with pytest.raises(DataError, match="'c', which is no class"):
        Npz(path, class_names=["a", "b"], cell_map={"c": {-1: 1}}).load()
    with pytest.raises(DataError, match="the labels are numbers: give a number, or nan"):
        Npz(path, cell_map={"x": 1}).load()
    with pytest.raises(ConfigError, match="cell_map is for columns of 0 and 1"):
        Npz(path, cell_map={-1: "unknown"}, labels="ids")
    np.savez(tmp_path / "one.npz", x=x, y=np.array([0, 1, 0]))
    with pytest.raises(DataError, match="has one label per row, and cell_map is for columns"):
        Npz(str(tmp_path / "one.npz"), cell_map={-1: "unknown"}).load()


def test_new_rows_are_read_by_the_same_map(tmp_path):
    made = table(tmp_path, site_column=None, drop=["site"], indicators=False)
    columns = made.load().columns
    expected = Expected(Inputs((1,), "float32", columns=columns), ("mass", "nodule", "none"), "multilabel")
    (batch,) = made.new_rows(expected, Problems())
    assert batch.labels.tolist() == [[1, U, 0], [0, 0, 1], [U, 1, 0], [U, U, U]]
    x = np.zeros((2, 1), np.float32)
    np.savez(tmp_path / "n.npz", x=x, y=np.array([[1, -1], [-1, 0]]))
    arrays = Npz(str(tmp_path / "n.npz"), cell_map={-1: "unknown"}, labels="several")
    (batch,) = arrays.new_rows(Expected(Inputs((1,), "float32"), ("a", "b"), "multilabel"), Problems())
    assert batch.labels.tolist() == [[1, U], [U, 0]]


def test_what_is_unknown_is_part_of_what_the_data_are(tmp_path):
    known, less = table(tmp_path, "age,mass,nodule,site\n50,1,1,p\n60,0,1,q\n").load(), table(
        tmp_path, "age,mass,nodule,site\n50,1,1,p\n60,,1,q\n"
    ).load()  # fmt: skip
    one, other = (Store.build(data, tmp_path / str(i), "f") for i, data in enumerate((known, less)))
    assert (one.unknown_cells, other.unknown_cells) == (False, True)
    assert one.content_sha != other.content_sha
    assert rows_sha(one) != rows_sha(other)


def test_a_column_that_gives_a_label_away_is_found_among_the_rows_that_have_the_label(tmp_path):
    rng = np.random.default_rng(0)
    sick = rng.integers(0, 2, 60)
    lines = [f"{rng.normal():.3f},{s},{s if i % 3 else ''},{rng.integers(0, 2)},p" for i, s in enumerate(sick)]
    data = table(tmp_path, "age,ward,mass,nodule,site\n" + "\n".join(lines) + "\n").load()
    assert any(one.name == "label_column" and "ward" in one.place for one in look_at(data)[0])


NAMES = "[a,b,c]"


def write(path, targets, sites=None, **more):
    n = len(targets)
    sites = np.arange(n) % 2 if sites is None else sites
    y = np.where(targets == U, np.nan, targets.astype(float))
    x = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    np.savez(path, x=x, y=y, sites=np.array(["north", "south"])[sites], test=np.arange(n) < 4, **more)
    return path


def words(path, *more):
    return (
        "data=npz", f"data.source.path={path}", f"data.source.class_names={NAMES}", "partition=by_column",
        "clients.count=2", "data.n_max=null", "data.class_order=fixed", "model=logistic", "loss=bce",
        "data.minority=[c]", "data.source.cell_map={nan: unknown}", *more,
    )  # fmt: skip


def drawn(n=40, seed=0):
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 3)) < [0.6, 0.4, 0.4]).astype(np.uint8)
    targets[~targets.any(axis=1), 0] = 1
    targets[rng.random((n, 3)) < 0.2] = U
    targets[(targets == 0).all(axis=1)] = 1
    return targets


def test_counts_are_of_known_positives_and_shares_of_known_cells(tmp_path):
    targets = drawn()
    targets[[10, 11]] = U  # nothing is known of a row of either site
    one = config(*words(write(tmp_path / "d.npz", targets), "data.validation=0.25"))
    federation = prepare(one.data, one.partition, 2, 0)
    assert (federation.unknown_rule, federation.unknown_labels) == ("cells", "cells")
    own = [np.flatnonzero((np.arange(40) >= 4) & (np.arange(40) % 2 == k)) for k in range(2)]
    left = [np.setdiff1d(rows, [10, 11]) for rows in own]
    for k in range(2):
        both = np.sort(np.concatenate([federation.train[k], federation.validation[k]]))
        assert both.tolist() == left[k].tolist()
    assert federation.labels.left_out.tolist() == [1, 1]
    assert federation.counts.tolist() == [(targets[rows] == 1).sum(axis=0).tolist() for rows in own]
    assert federation.labels.cells.tolist() == [(targets[rows] != U).sum(axis=0).tolist() for rows in own]
    rest = np.concatenate(left)
    np.testing.assert_allclose(federation.labels.known_share, (targets[rest] != U).mean(axis=0))
    assert federation.test_counts.tolist() == (targets[:4] == 1).sum(axis=0).tolist()
    federation.save(tmp_path / "saved")
    again = Federation.load(tmp_path / "saved")
    assert again.labels.cells.tolist() == federation.labels.cells.tolist()
    text = " ".join(describe(federation).split())
    assert f"of {len(rest)} rows it is known whether they have: a {(targets[rest, 0] != U).sum()}" in text
    assert "2 rows of which nothing is known are left out" in text
    assert federation.known_validation().tolist() == np.sort(federation.validation.rows).tolist()


def test_a_clients_tensors_and_primary_classes_say_no_more_than_the_cells(tmp_path):
    targets = drawn()
    one = config(*words(write(tmp_path / "d.npz", targets)))
    data = prepare(one.data, one.partition, 2, 0).client(1)
    rows = data.rows("train")
    np.testing.assert_array_equal(data.tensors("train")[1].numpy(), known_cells(targets[rows]))
    assert data.counts("train").tolist() == (targets[rows] == 1).sum(axis=0).tolist()
    primary = data.primary("train")
    positive = torch.from_numpy((targets[rows] == 1).any(axis=1))
    assert (primary[~positive] == -1).all()
    assert (~positive).any()
    assert (targets[rows[positive.numpy()], primary[positive].numpy()] == 1).all()
    assert data.store.targets is None


def test_unknown_cells_and_classes_that_a_client_does_not_annotate_add_up(tmp_path):
    targets = drawn()
    one = config(*words(write(tmp_path / "d.npz", targets), "data.labels.annotated={north: [a,b]}"))
    federation = prepare(one.data, one.partition, 2, 0)
    rows = federation.train[0]
    y = federation.client(0).tensors("train")[1]
    assert y[:, 2].isnan().all()
    np.testing.assert_array_equal(y[:, :2].numpy(), known_cells(targets[rows][:, :2]))
    assert federation.labels.cells[0].tolist() == [*(targets[rows][:, :2] != U).sum(axis=0), 0]
    with pytest.raises(DataError, match="annotate different classes"):
        federation.known_validation()


def test_no_label_is_counted_among_the_rows_of_which_all_is_known(tmp_path):
    targets = np.array(
        [[1, 0], [0, 1], [1, 1], [0, 0]] + 5 * [[0, 0], [1, 0], [U, 0], [1, U], [0, 1], [0, U]], np.uint8
    )
    one = config(*words(write(tmp_path / "d.npz", targets), "data.source.class_names=[a,b]", "data.minority=[b]"))
    federation = prepare(one.data, one.partition, 2, 0)
    assert federation.class_names == ("a", "b", "none")
    train = targets[4:]
    assert federation.class_totals.tolist() == [*(train == 1).sum(axis=0), 5]
    assert federation.labels.cells.sum(axis=0).tolist() == [*(train != U).sum(axis=0), 15]


def test_a_class_of_which_no_client_knows_anything_is_refused(tmp_path):
    targets = drawn()
    targets[4:, 1] = U
    one = config(*words(write(tmp_path / "d.npz", targets)))
    with pytest.raises(DataError, match="class 'b' is unknown in every row of the clients"):
        prepare(one.data, one.partition, 2, 0)
    virtual = config(*words(write(tmp_path / "e.npz", drawn()), "partition=virtual"))
    with pytest.raises(DataError, match="virtual clients know every label"):
        prepare(virtual.data, virtual.partition, 2, 0)


def test_what_a_map_says_of_arrays_and_of_text_is_the_same():
    cells = CellMap("npz", {"nan": "unknown", 2: 0, "b": {2: 1}})
    raw = np.array([[1.0, np.nan], [2.0, 2.0], [0.0, 3.0]])
    assert cells.of_array(["a", "b"], raw).tolist() == [[1, U], [0, 1], [0, 255]]
    assert [cells.of("b", "2.0"), cells.of("a", "2"), cells.of("a", "nan"), cells.of("a", "3")] == [1, 0, U, None]
