"""What pyproject.toml cannot say: packages where links came out as files, the pages, a README for readers elsewhere.

The package has links to strategies/, clients/ and configs/. A checkout without symbolic links has small text files in
their place, and a wheel built there would lack three folders without a word; here they are found where they are.
"""

import re
import sys
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
LINKED = ("strategies", "clients", "configs")
SHARE = "share/doc/fedimb"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff")


def packages() -> tuple[list[str], dict[str, str]]:
    """(names of all packages, package -> folder for those that are not where their name says).

    Raises:
        SystemExit: a linked folder is nowhere; a wheel without it would be broken.
    """
    found = [name for name in find_namespace_packages(str(HERE), include=["fedimb*"]) if "__pycache__" not in name]
    elsewhere = {}
    for name in LINKED:
        if (HERE / "fedimb" / name).is_dir():
            continue
        if not (HERE / name).is_dir():
            raise SystemExit(f"fedimb: neither fedimb/{name} nor {name} is a folder: this checkout is not complete")
        elsewhere[f"fedimb.{name}"] = name
        below = find_namespace_packages(str(HERE / name))
        found += [f"fedimb.{name}", *(f"fedimb.{name}.{one}" for one in below if "__pycache__" not in one)]
    return sorted(found), elsewhere


def documentation() -> list[tuple[str, list[str]]]:
    """(folder below the environment, files): the pages that messages name, for readers without the repository.

    An editable install reads those of its checkout, and would get a copy that grows old.
    """
    if "editable_wheel" in sys.argv:
        return []
    found = {SHARE: [name for name in PAGES if (HERE / name).is_file()]}
    for file in sorted((HERE / "docs").rglob("*")):
        if file.is_file() and not any(part.startswith((".", "__")) for part in file.relative_to(HERE).parts):
            where = file.relative_to(HERE)
            found.setdefault(f"{SHARE}/{where.parent.as_posix()}", []).append(where.as_posix())
    return list(found.items())


def readme() -> str:
    """README.md without what is dead outside the repository: pictures of it, and links into it, which become words."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


names, folders = packages()
setup(
    packages=names,
    package_dir=folders,
    data_files=documentation(),
    long_description=readme(),
    long_description_content_type="text/markdown",
)
