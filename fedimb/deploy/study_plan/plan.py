"""Study plans: what a site is asked to agree to, and nothing happens that it does not cover.

A plan is one JSON file that the coordinator makes and sends. Its SHA-256 over the content is its name: another purpose,
configuration, range or table is another plan, to be approved anew. A node makes the table of what leaves again from its
own contracts, and refuses a plan whose table, release or hash differs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from fedimb import __version__
from fedimb.config.load import NO_INFLUENCE, config_sha, flatten, from_json, to_json
from fedimb.deploy.bundle_hash import bundle_sha
from fedimb.deploy.files import parsed
from fedimb.deploy.home import SITE
from fedimb.deploy.study_plan.outbound_records import Leaving, Sizes, leaving, sizes_of
from fedimb.deploy.study_plan.ranges import Range, Scalar, check_vary, most_rounds
from fedimb.errors import ConfigError, FedimbError, nearest
from fedimb.plain import Settings
from fedimb.registry.targets import is_path
from fedimb.schema import RunConfig, Strict

_MOST_CHARACTERS = 1 << 20
# No control characters, nor such as turn the direction of writing: a person reads these before deciding.
_PLAIN = r"^[^\x00-\x1f\x7f-\x9f\u200e-\u202e\u2066-\u2069]+$"
Line = Annotated[str, Field(min_length=1, max_length=2000, pattern=_PLAIN)]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class Release(Strict):
    """Which fedimb the sites must have: version, and hash of the bundle that Flower ships."""

    fedimb: Line
    bundle: Sha


class StudyPlan(Strict):
    """plan.json.

    Attributes:
        config: the whole resolved configuration; ``config_sha`` its hash.
        vary: settings that may differ from it, by dotted key.
        tags: which registered data set a site shall use: the one that has them all.
        classes, minority: names, in the order of class ids; those that the study is about.
        input_shape, sizes: of one row, and of the model.
        leaves: everything that leaves a site.
    """

    format: Literal[1] = 1
    deployment: str = Field(pattern=SITE)
    purpose: Line
    contacts: list[Line] = Field(min_length=1)
    created: Moment
    expires: Moment
    release: Release
    config: Settings
    config_sha: Sha
    vary: dict[str, Range]
    tags: list[Line] = Field(min_length=1)
    classes: list[Line] = Field(min_length=1)
    minority: list[Line]
    input_shape: list[int]
    sizes: Sizes
    leaves: list[Leaving]

    @property
    def sha(self) -> str:
        """SHA-256 (hex) of the content."""
        return hashlib.sha256(self._text(None).encode()).hexdigest()

    def to_json(self) -> str:
        """plan.json's text."""
        return self._text(1) + "\n"

    def _text(self, indent: int | None) -> str:
        # Not sorted: the order of methods means something.
        return json.dumps(self.model_dump(), ensure_ascii=False, allow_nan=False, indent=indent)

    def run_config(self) -> RunConfig:
        """The configuration, checked against the parts installed here. Raises ConfigError."""
        return site_config(json.dumps(self.config, ensure_ascii=False))

    def expired(self, now: datetime | None = None) -> bool:
        """Whether its time is over."""
        return (now or datetime.now(UTC)) >= moment(self.expires)


def site_config(text: str) -> RunConfig:
    """A configuration that came over the network, checked; `from_json` would import a model named by its path.

    Raises:
        ConfigError: not valid here, or its model is a class by its path.
    """
    try:
        model = json.loads(text)["model"]
        named = model.get("name") if "_target_" not in model else model["_target_"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError("the configuration names no model: send what fedimb.config.load.to_json wrote") from None
    if "_target_" in model or not isinstance(named, str) or is_path(named):
        raise ConfigError(f"model '{named}' is a class by its path: sites build registered models only")
    return from_json(text)


def moment(text: str) -> datetime:
    """``2026-03-01T08:00:00Z`` as a time. ConfigError for a day that does not exist."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"{text} is no time: write it as 2026-12-31T00:00:00Z (UTC)") from None


def make_plan(
    deployment: str,
    config: RunConfig,
    purpose: str,
    contacts: Sequence[str],
    created: str,
    expires: str,
    vary: Mapping[str, Range],
    tags: Sequence[str],
    classes: Sequence[str],
    minority: Sequence[str],
    input_shape: Sequence[int],
) -> StudyPlan:
    """A plan, its table made from the contracts.

    Raises:
        ConfigError: a text, time or setting that a plan cannot have.
    """
    if moment(expires) <= moment(created):
        raise ConfigError(f"the plan would have expired before it began ({expires}): give a later day")
    if unknown := set(minority) - set(classes):
        raise ConfigError(f"minority class '{min(unknown)}' is no class.{nearest(min(unknown), classes)}")
    site_config(to_json(config))
    check_vary(config, vary)
    sizes = sizes_of(config, len(classes), tuple(input_shape))
    tree = {
        "deployment": deployment, "purpose": purpose, "contacts": list(contacts), "created": created,
        "expires": expires, "release": {"fedimb": __version__, "bundle": bundle_sha()},
        "config": json.loads(to_json(config)), "config_sha": config_sha(config),
        "vary": {key: one.model_dump() for key, one in vary.items()}, "tags": list(tags), "classes": list(classes),
        "minority": list(minority), "input_shape": list(input_shape), "sizes": sizes.model_dump(),
        "leaves": [row.model_dump() for row in leaving(config, sizes, most_rounds(config, vary))],
    }  # fmt: skip
    return parsed(tree, StudyPlan, "study plan")


def read_plan(text: str) -> StudyPlan:
    """A plan as it was sent.

    Raises:
        ConfigError: no JSON, or no plan; says which part.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"a study plan of {len(text)} characters is none: at most {_MOST_CHARACTERS}")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the study plan is not JSON: {error}") from None
    plan = parsed(tree, StudyPlan, "study plan")
    moment(plan.created), moment(plan.expires)
    return plan


def mismatch(plan: StudyPlan) -> str | None:
    """Why a plan cannot be meant for this installation, in words for the coordinator; None: it can.

    The table of what leaves is made again here, so a person never agrees to another than the installed code keeps to.
    """
    release = Release(fedimb=__version__, bundle=bundle_sha())
    if plan.release != release:
        return f"it is for fedimb {plan.release.fedimb} ({plan.release.bundle[:8]}), here is {release.fedimb} " + (
            f"({release.bundle[:8]}): install the same release"
        )
    try:
        config = plan.run_config()
        check_vary(config, plan.vary)
        sizes = sizes_of(config, len(plan.classes), tuple(plan.input_shape))
    except FedimbError as error:
        return f"its configuration is refused: {error}"
    if config_sha(config) != plan.config_sha or flatten(config) != flatten(_as_given(plan)):
        return "its configuration is not the one it names"
    if sizes != plan.sizes or leaving(config, sizes, most_rounds(config, plan.vary)) != plan.leaves:
        return "its table of what leaves is not what the installed contracts say"
    return None


def _as_given(plan: StudyPlan) -> RunConfig:
    return RunConfig.model_validate(plan.config)


def check_config(plan: StudyPlan, config: RunConfig) -> None:
    """Nothing, if the plan covers a run's configuration.

    Raises:
        ConfigError: the first setting that differs and may not; its text names settings only.
    """
    agreed, asked = flatten(plan.run_config()), flatten(config)
    for key in [*agreed, *(key for key in asked if key not in agreed)]:
        if key.split(".")[0] in NO_INFLUENCE or (key in agreed and key in asked and _equal(agreed[key], asked[key])):
            continue
        may = plan.vary.get(key)
        if key in agreed and key in asked and may is not None and may.allows(asked[key]):
            continue
        said = f"{may}" if may is not None else str(agreed.get(key, "no such setting"))
        raise ConfigError(
            f"study plan {plan.sha[:8]} does not cover {key}={asked.get(key, 'nothing')} (agreed: {said}); make "
            "another plan with fedimb deploy plan, and have the sites approve it"
        )


def _equal(one: Scalar, other: Scalar) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
