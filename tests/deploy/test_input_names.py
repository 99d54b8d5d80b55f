"""Sites whose columns, channels or encoders differ are refused by name; of one shape, they average as if alike."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from deployed import small_study
from loopback import Loopback

from fedimb.api import load_model
from fedimb.contracts.platform import MOST_NAMES
from fedimb.data.inputs import AgreedColumns, Inputs, TableColumns
from fedimb.data.new_rows import Expected, check_row_settings, check_signal
from fedimb.data.problems import Problems
from fedimb.data.row_settings import row_settings
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.data.windows import SignalFacts
from fedimb.deploy.coordinator.federation import DeployedFederation
from fedimb.deploy.coordinator.serve import _signal, serve
from fedimb.deploy.input_names import agreed_columns, agreed_settings, check_input_names, input_names
from fedimb.deploy.registered_data.datasets import register_data
from fedimb.deploy.site.approvals import receive_plan
from fedimb.errors import DataError
from fedimb.rundir.model_origin import inputs_of


def store(columns=None, channels=(), encoder=None):
    signal = SignalFacts(50.0, tuple(channels), 16) if channels else None
    return SimpleNamespace(columns=columns, signal=signal, encoder=encoder)


def table(*names, **categories):
    return store(TableColumns(names, categories))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (table("age", "dose"), table("dose", "age"), "column 1 is 'age' at linz and 'dose' at va (the same names in"),
        (table("age", "dose"), table("age", "Dosis"), "column 2 is 'dose' at linz and 'Dosis' at va:"),
        (table("age", "dose"), table("age"), "linz has 2 columns, va 1"),
        (table("age", "sex", sex=("f", "m")), table("age", "sex", sex=("m", "f")), "other categories"),
        (store(channels=("I", "II")), store(channels=("II", "I")), "channel 1 is 'I' at linz and 'II' at va"),
        (store(encoder="bert r1"), store(encoder="bert r2"), "encoder: 'bert r1' at linz, 'bert r2' at va"),
        (table("x\u001b[31m"), table("y"), "column 1 is 'x [31m' at linz"),
    ],
)
def test_two_sites_that_differ_are_refused_with_both_names(one, other, said):
    with pytest.raises(DataError) as caught:
        check_input_names({"linz": input_names(one, {}), "va": input_names(other, {})})
    assert said in str(caught.value)
    assert "--like FILE" in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"clahe": {"tiles": 4}}, {}, "clahe={clip: 2.0, tiles: 4} at linz and null at va: register"),
        ({"clahe": {"tiles": 4}}, {"clahe": {"tiles": 4, "clip": 3}}, "{clip: 3, tiles: 4} at va"),
        ({}, {"name": "image_csv", "mode": "L"}, "mode=RGB at linz and L at va"),
        ({"name": "embeddings_npz", "l2_normalise": True}, {"name": "embeddings_npz"}, "l2_normalise=true at linz"),
        ({"name": "signals_npz", "transform": {"name": "stft"}}, {"name": "signals_npz"}, "transform={name: stft,"),
    ],
)
def test_sites_that_read_their_rows_with_other_settings_are_refused(one, other, said):
    sources = {site: {"name": "image_folder", **source} for site, source in (("linz", one), ("va", other))}
    texts = {site: input_names(store(), source) for site, source in sources.items()}
    with pytest.raises(DataError, match=re.escape(said)):
        check_input_names(texts)
    assert check_input_names({"linz": texts["linz"], "va": texts["linz"]}) is None


def test_a_site_that_cannot_say_how_its_rows_are_read_is_named():
    equal = input_names(store(), {"name": "image_folder", "clahe": {}})
    assert check_input_names({"linz": equal, "va": ""}) == (
        "va: nothing says whether rows are read with clahe={clip: 2.0, tiles: 8} there, as at linz; "
        "they are taken to be"
    )
    assert check_input_names({"linz": input_names(store(), {"name": "image_folder"}), "va": ""}) is None


def test_sites_that_agree_pass_and_one_that_names_nothing_is_said():
    named = input_names(table("age", "sex", sex=("f", "m")), {})
    assert check_input_names({"linz": named, "va": named}) is None
    assert check_input_names({"linz": "", "va": ""}) is None
    assert check_input_names({"linz": named, "va": ""}) == (
        "va: nothing names the columns there; they are taken to be those of linz"
    )


def test_what_sites_agree_on_is_kept_in_the_model_for_rows_to_predict(tmp_path):
    pictures = {"name": "image_folder", "path": "films", "clahe": {"clip": 3.0}}
    said = input_names(store(), pictures)
    kept = {"clahe": {"clip": 3.0, "tiles": 8}, "mode": "RGB"}
    assert agreed_settings({"linz": "", "va": said, "wien": "sha256:ab"}) == (kept, None)
    forged = json.dumps({"settings": {"mode": "RGB", "path": "/etc"}})
    assert agreed_settings({"linz": forged}) == ({"mode": "RGB"}, None)
    embedded = input_names(store(encoder="bert r1"), {"name": "embeddings_npz", "path": "x", "l2_normalise": True})
    settings, encoder = agreed_settings({"linz": embedded})
    assert (settings, encoder) == ({"l2_normalise": True}, "bert r1")
    made = small_study(tmp_path, {"linz": 60, "va": 75}, "tracking=none")
    ones = [1, 1]
    elsewhere = DeployedFederation(made.plan, ["linz", "va"], ["a", "b"], ones, ones, None, 1.0, ones, None)
    elsewhere.read_with, elsewhere.embedded_by = kept, "bert r1"
    inputs = Inputs.from_facts(json.loads(json.dumps(inputs_of(elsewhere).facts())))
    assert (inputs.row_settings, inputs.encoder, inputs.dtype) == (kept, "bert r1", "")
    with pytest.raises(
        DataError, match=r"clahe=null, the run was trained on rows read with clahe=\{clip: 3.0, tiles: 8"
    ):
        check_row_settings("b", row_settings(pictures | {"clahe": None}), Expected(inputs, ("x", "y"), "multiclass"))


def deployed(tmp_path, shape, agreed=None, signal=None):
    """The rows of a deployment, as its model's file keeps them."""
    made = small_study(tmp_path, {"linz": 60, "va": 75}, "tracking=none")
    plan = made.plan.model_copy(update={"input_shape": list(shape)})
    ones = [1, 1]
    elsewhere = DeployedFederation(plan, ["linz", "va"], ["a", "b"], ones, ones, None, 1.0, ones, None)
    elsewhere.agreed, elsewhere.signal = agreed, signal
    return Inputs.from_facts(json.loads(json.dumps(inputs_of(elsewhere).facts())))


def test_columns_that_sites_agree_on_are_those_of_the_model(tmp_path):
    said = input_names(table("age", "dose"), {})
    agreed, channels = agreed_columns({"linz": "", "va": said, "wien": "sha256:ab"})
    assert (agreed.names, channels) == (("age", "dose"), ())
    inputs = deployed(tmp_path, [2], agreed)
    assert (inputs.columns, inputs.agreed) == (TableColumns(("age", "dose")), None)
    for forged in ('{"columns": ["a", "a"], "categories": "x"}', '{"columns": [1], "categories": "x"}', "[]", "{"):
        assert agreed_columns({"linz": forged}) == (None, ())


def test_categories_that_stay_at_the_sites_are_given_and_checked(tmp_path):
    """In the table's settings, since of them only a hash has left the sites."""
    columns = TableColumns(("sex", "age"), {"sex": ("f", "m")}, ("sex", "age"))
    agreed, _ = agreed_columns({"va": input_names(store(columns), {})})
    inputs = deployed(tmp_path, [5], agreed)
    assert (inputs.columns, inputs.agreed) == (None, AgreedColumns(("sex", "age"), columns.inputs_hash))
    expected = Expected(inputs, ("x", "y"), "multiclass")
    (tmp_path / "new.csv").write_text("age,sex\n50,m\n,f\n")

    def rows(**settings):
        source = TabularCsv(str(tmp_path / "new.csv"), target="label", **settings)
        (batch,) = source.new_rows(expected, Problems())
        return batch.x

    expected_rows = np.array([[0, 1, 50, 0, 0], [1, 0, np.nan, 0, 1]], np.float32)  # f, m, age, two marks
    np.testing.assert_array_equal(rows(categorical={"sex": ["f", "m"]}), expected_rows)
    for wrong in ({}, {"categorical": {"sex": ["m", "f"]}}, {"categorical": {"sex": ["f", "m", "x"]}},
                  {"categorical": {"sex": ["f", "m"]}, "indicators": ["age"]}):  # fmt: skip
        with pytest.raises(DataError, match="the run's sites read the columns sex, age with other categories"):
            rows(**wrong)
    (tmp_path / "new.csv").write_text("age,sex\n50,w\n")
    problems, settings = Problems(), {"target": "label", "categorical": {"sex": ["f", "m"]}}
    assert not list(TabularCsv(str(tmp_path / "new.csv"), **settings).new_rows(expected, problems))
    assert len(problems.lines) == 1
    assert "'w'" in problems.lines[0]


def test_signals_of_another_rate_or_of_channels_in_another_order_are_refused(tmp_path):
    _, channels = agreed_columns({"linz": input_names(store(channels=("I", "II")), {})})
    inputs = deployed(tmp_path, [2, 16], signal=_signal(50.0, channels, (2, 16)))
    expected = Expected(inputs, ("x", "y"), "multiclass")
    check_signal("new.npz", SignalFacts(50.0, ("I", "II"), 16), expected)
    with pytest.raises(DataError, match=r"new\.npz has 100 Hz, the run was trained on 50 Hz"):
        check_signal("new.npz", SignalFacts(100.0, ("I", "II"), 16), expected)
    with pytest.raises(DataError, match="channels II, I, the run was trained on I, II"):
        check_signal("new.npz", SignalFacts(50.0, ("II", "I"), 16), expected)
    assert _signal(None, (), (2, 16)) is None
    assert _signal(50.0, ("I", "II", "III"), (2, 16)).channels == ()  # made up


def test_of_categories_and_of_very_many_names_only_a_hash_leaves():
    assert "f=" not in (text := input_names(table("sex", sex=("rare-value", "m")), {}))
    assert "rare-value" not in text
    assert json.loads(text)["columns"] == ["sex"]
    many = [table(*(f"{word}{i}" for i in range(10_000))) for word in ("gene", "Gene")]
    texts = {site: input_names(one, {}) for site, one in zip(("linz", "va"), many, strict=True)}
    assert all(len(text) < 100 < MOST_NAMES for text in texts.values())
    with pytest.raises(DataError, match="linz and va name their columns differently"):
        check_input_names(texts)


@pytest.mark.parametrize("forged", ["{", "[]", "7", '{"columns": 3}', '{"columns": [[1], 2]}'])
def test_a_text_that_a_site_made_up_is_refused_and_raises_nothing_else(forged):
    with pytest.raises(DataError):
        check_input_names({"linz": input_names(table("age", "dose"), {}), "va": forged})


@pytest.fixture
def study(tmp_path):
    made = small_study(tmp_path, {"linz": 60, "va": 75}, "tracking=none")
    for home in made.homes.values():
        receive_plan(home, made.plan.to_json())
    made.approve()
    return made


def test_a_site_with_two_columns_exchanged_does_not_train(study, tmp_path):
    file = tmp_path / "va.csv"
    head, *rows = file.read_text().splitlines()
    assert head.startswith("age,dose,")
    swapped = [",".join([line.split(",")[1], line.split(",")[0], *line.split(",")[2:]]) for line in (head, *rows)]
    file.write_text("\n".join(swapped) + "\n")
    register_data(study.homes["va"], str(file), "heads", ["heads"], like=str(tmp_path / "group.yaml"))
    folder = study.new()
    with pytest.raises(
        DataError, match=r"column 1 is 'age' at linz and 'dose' at va \(the same names in another order"
    ):
        serve(folder.path, Loopback(study.homes.values()))
    assert folder.status() != "finished"


def test_a_model_of_a_deployment_reads_new_tables_by_the_names_of_their_columns(study, tmp_path):
    folder = study.new()
    serve(folder.path, Loopback(study.homes.values()))
    model = load_model(folder.path)
    head, *rows = (tmp_path / "va.csv").read_text().splitlines()
    assert head.startswith("age,dose,")
    swapped = [",".join([line.split(",")[1], line.split(",")[0], *line.split(",")[2:]]) for line in (head, *rows)]
    (tmp_path / "new.csv").write_text("\n".join(swapped) + "\n")
    one, other = model.predict(tmp_path / "va.csv"), model.predict(tmp_path / "new.csv")
    np.testing.assert_array_equal(other.scores, one.scores)
    swapped[0] = swapped[0].replace("dose", "Dosis")
    (tmp_path / "new.csv").write_text("\n".join(swapped) + "\n")
    with pytest.raises(DataError, match="lacks column 'dose' that the run was trained on"):
        model.predict(tmp_path / "new.csv")


def test_files_of_a_simulation_are_matched_by_the_names_of_their_columns(tmp_path):
    from fedimb.data.sources.tabular_csv import TabularCsv

    (tmp_path / "a.csv").write_text("age,dose,label\n1,20,x\n2,21,y\n")
    (tmp_path / "b.csv").write_text("dose,age,label\n22,3,x\n23,4,y\n")
    given = {"linz": str(tmp_path / "a.csv"), "va": str(tmp_path / "b.csv")}
    data = TabularCsv(files=given, target="label", indicators=False).load()
    np.testing.assert_array_equal(data.x, [[1, 20], [2, 21], [3, 22], [4, 23]])
    (tmp_path / "b.csv").write_text("Dosis,age,label\n22,3,x\n23,4,y\n")
    with pytest.raises(DataError, match=r"b.csv has column 'Dosis' and .*a.csv does not"):
        TabularCsv(files=given, target="label", indicators=False).load()
