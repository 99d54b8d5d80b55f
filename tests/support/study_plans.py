"""A small study plan for tests, a node's folder, and the keys of sites."""

from functools import cache
from pathlib import Path

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.deploy.files import write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import make_site_key
from fedimb.deploy.study_plan.plan import StudyPlan, make_plan
from fedimb.deploy.study_plan.ranges import Range
from fedimb.schema import RunConfig


def run_config(*overrides: str) -> RunConfig:
    """A configuration on digits with a logistic model."""
    return validate(compose((), shared=["model=logistic", "rounds=5", *overrides]))


@cache
def keys_of(name: str) -> tuple[bytes, str]:
    """(private key, public line) of a site or of the ``coordinator``, the same in all tests of a process."""
    private, public = make_site_key()
    return private, public.decode().strip()


def sites_of(count: int) -> dict[str, str]:
    """Public key by site: linz, va and st-anna, then others."""
    listed = ["linz", "va", "st-anna", *(f"site-{number:02d}" for number in range(3, count))]
    return {name: keys_of(name)[1] for name in listed[:count]}


def plan_of(config: RunConfig, **change) -> StudyPlan:
    """A plan of two classes and four numbers per row, rounds 1 to 8 and any seed, of as many sites as clients."""
    about = {
        "purpose": "Seltene Fälle: Größe | <b>Übung</b>",
        "contacts": ["Dr. Jürgen Müller, +49 30 1234"],
        "created": "2026-01-01T00:00:00Z",
        "expires": "2126-01-01T00:00:00Z",
        "vary": {"rounds": Range(low=1, high=8), "seed": Range()},
        "tags": ["heart"],
        "classes": ["gesund", "schwer krank"],
        "minority": ["schwer krank"],
        "input_shape": [4],
        "coordinator": keys_of("coordinator")[1],
        "sites": sites_of(config.clients.count),
    }
    return make_plan("heart", config, **(about | change))


def node_home(folder: Path, text: str = "site: st-anna\n") -> NodeHome:
    """A node's folder with nothing but its settings and the key that `plan_of` lists for its site."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "node.yaml").write_text(text, encoding="utf-8")
    home = NodeHome.open(folder)
    write_private(folder / "key", keys_of(home.site)[0])
    return home
