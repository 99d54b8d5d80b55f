"""One finished run for every file here, made once; tests work on copies."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from seals import unseal
from small_runs import launch_in


@pytest.fixture(scope="session")
def finished(cache_dir, tmp_path_factory):
    """A finished run with two calibrations and validation rows."""
    where = tmp_path_factory.mktemp("finished")
    return launch_in(where, "engine=inline", "calibration=[none,la_post]", "data.validation=0.1", "rounds=2")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copy(finished, home):
    """Copy the finished run into ``runs/<study>/<name>`` of the working folder; a status makes it unfinished."""

    def make(name: str = finished.folder.name, study: str = "default", status: str | None = None) -> Path:
        from fedimb.rundir.folder import RunFolder

        path = home / "runs" / study / name
        shutil.copytree(finished.folder, path)
        if status is not None:
            (unseal(path) / "result.json").unlink()
            RunFolder(path).set_status(status, "labels needed" if status == "waiting" else "")
        return path

    return make


@pytest.fixture(scope="session")
def schema():
    """The published schema of every verb's output; checking it takes half a second, so that is done once."""
    found = json.loads((Path(__file__).parents[2] / "docs" / "json.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.fixture(autouse=True)
def valid_outputs(schema, monkeypatch):
    """In every test here, what a verb returns beside its text, which ``--json`` would print, keeps the schema."""
    from fedimb.cli import json_mode
    from fedimb.cli.output.base import Output

    result = json_mode.Answer.result

    def checked(self, outcome):
        if isinstance(outcome, Output):
            found = json.loads(outcome.model_dump_json(by_alias=True))
            about = {"$ref": f"#/$defs/{type(outcome).__name__}", "$defs": schema["$defs"]}
            jsonschema.Draft202012Validator(about).validate(found)
        return result(self, outcome)

    monkeypatch.setattr(json_mode.Answer, "result", checked)
