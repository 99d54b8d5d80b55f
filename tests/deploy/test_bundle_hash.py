"""The one bundle a node accepts: what `flwr build` makes of the installed one, and nothing like it."""

import io
import tomllib
import zipfile
from pathlib import Path

import pytest
import tomli_w
from flwr.cli.build import build_fab_from_files

import fedimb
from fedimb.deploy.bundle_hash import (
    BUNDLE,
    MANIFEST,
    PROJECT,
    ForeignBundle,
    bundle_sha,
    check_bundle,
    content_of,
    content_sha,
    own_project,
)

SOURCE = BUNDLE


def built(**more: bytes | Path) -> bytes:
    """A bundle as Flower builds it, of fedimb's pyproject.toml and other files."""
    return build_fab_from_files({PROJECT: SOURCE, **more})[0]


def changed(**fields: str) -> bytes:
    """fedimb's bundle with other fields in [project]."""
    project = tomllib.loads(SOURCE.read_text())
    project["project"].update(fields)
    return build_fab_from_files({PROJECT: tomli_w.dumps(project).encode()})[0]


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_what_flower_builds_of_the_installed_bundle_is_accepted() -> None:
    bundle = built()
    assert content_of(bundle)[PROJECT] == own_project()  # byte for byte what `flwr build` ships
    assert content_sha(content_of(bundle)) == bundle_sha()
    check_bundle(bundle)


def test_the_hash_is_of_the_content_not_of_the_zip() -> None:
    again = zipped({PROJECT: own_project(), MANIFEST: b"anything"})
    assert again != built()
    check_bundle(again)


def test_the_bundle_carries_the_release() -> None:
    """Otherwise two releases would ship one bundle, and a site could not tell them apart."""
    assert tomllib.loads(own_project().decode())["project"]["version"] == fedimb.__version__


@pytest.mark.parametrize(
    ("bundle", "says"),
    [
        (changed(version="9.9.9"), "coordinator runs fedimb-deployed 9.9.9, this site"),
        (changed(name="evil"), "fedimb/evil"),
        (changed(description="other"), "content differs"),
        (zipped({PROJECT: own_project(), "sitecustomize.py": b"import os"}), "sitecustomize"),
        (zipped({PROJECT: own_project(), "../../x.py": b""}), "x.py"),
        (zipped({PROJECT: own_project() + b" " * (1 << 17)}, zipfile.ZIP_DEFLATED), "larger"),
        (zipped({PROJECT: b"\xff\xfe"}), r"calls itself \?"),
        (zipped({PROJECT: b"project = 3"}), r"calls itself \?"),
        (zipped({}), r"calls itself \?"),
        (b"no zip at all", "not a readable zip"),
        (built()[:-30], "not a readable zip"),
    ],
)
def test_every_other_bundle_is_refused_with_its_reason(bundle: bytes, says: str) -> None:
    with pytest.raises(ForeignBundle, match=says):
        check_bundle(bundle)


def test_code_in_a_bundle_is_refused_and_named() -> None:
    with pytest.raises(ForeignBundle, match=r"client\.py"):
        check_bundle(build_fab_from_files({PROJECT: SOURCE, "app/client.py": b"import os"})[0])


def test_two_entries_of_one_name_are_refused() -> None:
    """A reader may take the first, an unpacker the last."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(PROJECT, b"[project]")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(PROJECT, own_project())
    with pytest.raises(ForeignBundle, match="two files"):
        check_bundle(buffer.getvalue())


def test_control_characters_of_a_foreign_name_are_not_repeated() -> None:
    with pytest.raises(ForeignBundle) as caught:
        check_bundle(zipped({PROJECT: b'[project]\nname = "a\\u001b[31mb"\n'}))
    assert "\x1b" not in str(caught.value)
