"""A model class of the user's own by its dotted path."""

import sys
from pathlib import Path

import pytest
import torch

from fedimb import registry
from fedimb.config.compose import compose
from fedimb.config.load import from_json, to_json
from fedimb.config.parts import build_model
from fedimb.config.validate import validate
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.registry.targets import is_path, load_target

SOURCE = """
from torch import nn
from fedimb.models.base import Classifier

class MyNet(Classifier):
    def __init__(self, n_classes: int, input_shape: tuple[int, ...], width: int, bias: bool = True):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], width), nn.ReLU())
        self.head = nn.Linear(width, n_classes, bias=bias)

    def features(self, x):
        return self.body(x)

class NoModel:
    pass

answer = 42
"""


@pytest.fixture(autouse=True)
def my_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_module.py").write_text(SOURCE)
    (tmp_path / "my_broken.py").write_text("raise OSError('no disk')")
    (tmp_path / "my_needy.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_module", "my_broken", "my_needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_class_by_path_replaces_the_model_whole_and_is_given_classes_and_shape() -> None:
    config = validate(compose(["model={_target_: my_module.MyNet, width: 3}", "model.bias=false"]))
    assert config.model == {"name": "my_module.MyNet", "width": 3, "bias": False}
    model = build_model(config, 5, (8, 8))
    assert type(model).__name__ == "MyNet"
    assert model(torch.zeros(2, 8, 8)).shape == (2, 5)
    assert model.head.bias is None
    again = build_model(config, 5, (8, 8))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_it_may_come_from_a_yaml_file_and_from_the_stored_configuration(tmp_path: Path) -> None:
    (tmp_path / "groups" / "model").mkdir(parents=True)
    (tmp_path / "groups" / "model" / "mine.yaml").write_text("_target_: my_module.MyNet\nwidth: 4\n")
    config = validate(compose(["model=mine", "model.width=6"], [tmp_path / "groups"]))
    assert config.model == {"name": "my_module.MyNet", "width": 6}
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ({"_target_": "my_modul.MyNet"}, "no Python module 'my_modul'; run where its file is, put its folder on"),
        ({"_target_": "my_needy.MyNet"}, "no Python module 'not_installed_anywhere'; run where"),
        ({"_target_": "my_broken.MyNet"}, "importing my_broken failed: OSError: no disk"),
        (
            {"_target_": "my_module.MyNett"},
            "expected a subclass of fedimb.models.base.Classifier; my_module has no 'MyNett'. Did you mean 'MyNet'?",
        ),
        ({"_target_": "my_module.NoModel"}, "'NoModel' is not a subclass of it. Valid: MyNet."),
        ({"_target_": "my_module.answer"}, "'answer' is not a subclass of it. Valid: MyNet."),
        ({"_target_": "my_module.MyNet"}, "needs width: give width=..."),
        ({"_target_": "my_module.MyNet", "width": "3"}, "width='3': input should be a valid integer"),
        ({"_target_": "my_module.MyNet", "widht": 3}, "has no argument 'widht'. Did you mean 'width'?"),
        ({"_target_": "my_module.MyNet", "width": 3, "n_classes": 2}, "'n_classes' is passed by fedimb itself"),
        ({"_target_": "MyNet"}, "expected either a name or a class, as in {_target_: my_module.MyNet}"),
        ({"_target_": 3}, "expected either a name or a class, as in {_target_: my_module.MyNet}"),
        ({"_target_": "my_module.MyNet", "name": "mlp"}, "expected either a name or a class, as in {_target_:"),
        ({"width": 3}, "expected a mapping with a name"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line_before_any_work(model: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose([]) | {"model": model})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "my_plain_file.py").write_text(SOURCE)
    with pytest.raises(ConfigError, match="run where its file is"):
        load_target("model", "my_plain_file.MyNet", Classifier)
    monkeypatch.chdir(tmp_path / "here")
    assert load_target("model", "my_plain_file.MyNet", Classifier).__name__ == "MyNet"
    monkeypatch.delitem(sys.modules, "my_plain_file")


def test_an_engine_elsewhere_does_not_have_the_class() -> None:
    raw = compose(["model={_target_: my_module.MyNet, width: 3}"])
    for engine in ("inline", "ray"):
        assert validate(raw | {"engine": {"name": engine}}).engine["name"] == engine
    with pytest.raises(
        ConfigError, match=r"'my_module\.MyNet' is a class that exists on this machine only: use engine=inline"
    ):
        validate(raw | {"engine": {"name": "superlink"}})


def test_other_parts_take_no_path() -> None:
    with pytest.raises(ConfigError, match=r"^no loss 'my_module\.MyNet'"):
        registry.get("loss", "my_module.MyNet")
    with pytest.raises(ConfigError, match="loss takes one name"):
        compose(["loss={_target_: my_module.MyNet}"])


def test_paths_are_dotted_identifiers() -> None:
    assert is_path("a.b.C")
    assert not any(is_path(name) for name in ("mlp", "a.", ".a", "a..b", "../mlp", "a.2", "v1.0"))
    assert load_target("model", "my_module.MyNet", Classifier).__name__ == "MyNet"
