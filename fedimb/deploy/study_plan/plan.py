"""Study plans: what a site is asked to agree to. A site does nothing that an approved plan does not cover.

A plan is one JSON file that the coordinator makes and sends. It is named by the SHA-256 of its content: a change of
purpose, configuration, range, table, site or key makes another plan, which needs a new approval. A node rebuilds the
table of outbound records from its own contracts, and refuses a plan whose table, release or hash differs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from fedimb import __version__, registry
from fedimb.config.load import NO_INFLUENCE, config_sha, flatten, from_json, to_json
from fedimb.deploy.bundle_hash import bundle_sha
from fedimb.deploy.files import parse_settings
from fedimb.deploy.home import SITE
from fedimb.deploy.pki import key_fingerprint
from fedimb.deploy.study_plan.limits import SiteLimits
from fedimb.deploy.study_plan.outbound_records import OutboundRecord, Sizes, outbound_records, queries_of, sizes_of
from fedimb.deploy.study_plan.ranges import Range, Scalar, check_vary, most_rounds
from fedimb.errors import ConfigError, FedimbError, nearest
from fedimb.paces.base import PaceSettings
from fedimb.plain import Settings
from fedimb.privacy.recoverable_sum import FEWEST
from fedimb.registry.targets import is_path
from fedimb.schema import RunConfig, Strict

_MOST_CHARACTERS = 1 << 20
FEWEST_MASKED = FEWEST
"""Smallest number of sites in a masked sum: of two, each reads the other's values from the sum."""
# No control characters and none that change the writing direction: a person reads this text before deciding.
_PLAIN = r"^[^\x00-\x1f\x7f-\x9f\u200e-\u202e\u2066-\u2069]+$"
Line = Annotated[str, Field(min_length=1, max_length=2000, pattern=_PLAIN)]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PublicKey = Annotated[str, Field(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/]+=*$", max_length=400)]
UtcTime = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class Release(Strict):
    """The release of fedimb that the sites must have.

    Attributes:
        fedimb: version.
        bundle: SHA-256 of the app bundle that Flower ships.
    """

    fedimb: Line
    bundle: Sha


class PlannedSite(Strict):
    """A site of a study; its client id is its place in the list.

    Attributes:
        name: the site's name.
        key: its public key, one line in OpenSSH format, with which it signs its replies.
    """

    name: str = Field(pattern=SITE)
    key: PublicKey

    @property
    def fingerprint(self) -> str:
        """``SHA256:...`` of the key, as ``ssh-keygen -lf`` prints it; sites compare it out of band."""
        return key_fingerprint(self.key.encode(), f"the study plan's site {self.name}")


class RegionPart(Strict):
    """In a region's plan for its own sites: which part of the root's study they are.

    Attributes:
        region: its name at the root, which hears of the sum of its sites alone.
        root: hash of the root's plan, which the region approved.
        first: client id of the region's first site.
        of: number of sites of all regions.
        min_members: how many sites the region's sum is over at least.
    """

    region: str = Field(pattern=SITE)
    root: Sha
    first: int = Field(ge=0)
    of: int = Field(ge=2)
    min_members: int = Field(ge=2)


class StudyPlan(Strict):
    """A study plan, as stored in plan.json.

    Attributes:
        deployment: name of the deployment.
        purpose, contacts: what the study is for, and whom to ask.
        created, expires: UTC times.
        release: the release of fedimb it needs.
        config: the complete resolved configuration.
        config_sha: its hash.
        vary: settings that may differ between runs, by dotted key.
        runs: number of runs the plan covers; a run that is resumed is the same one.
        tags: tags of the registered data set to use; a data set must have all of them.
        classes: class names in the order of class ids.
        minority: the classes that the study is about.
        input_shape: shape of one row.
        sizes: sizes of the model.
        leaves: everything that leaves a site.
        coordinator: the public key with which the coordinator signs its messages.
        sites: the sites that take part, sorted by name; a client's id is its index.
        limits: rows and value ranges per site, which replies are checked against.
        part: of a region's plan for its sites, whose ids then follow those of earlier regions; absent in other plans.
    """

    format: Literal[2] = 2
    deployment: str = Field(pattern=SITE)
    purpose: Line
    contacts: list[Line] = Field(min_length=1)
    created: UtcTime
    expires: UtcTime
    release: Release
    config: Settings
    config_sha: Sha
    vary: dict[str, Range]
    runs: int = Field(ge=1, le=100_000)
    tags: list[Line] = Field(min_length=1)
    classes: list[Line] = Field(min_length=1)
    minority: list[Line]
    input_shape: list[int]
    sizes: Sizes
    leaves: list[OutboundRecord]
    coordinator: PublicKey
    sites: list[PlannedSite] = Field(min_length=1)
    limits: SiteLimits = SiteLimits()
    part: RegionPart | None = None

    @property
    def sha(self) -> str:
        """SHA-256 (hex) of the content."""
        return hashlib.sha256(self._text(None).encode()).hexdigest()

    def to_json(self) -> str:
        """The text of plan.json."""
        return self._text(1) + "\n"

    def _text(self, indent: int | None) -> str:
        # Not sorted: the order of methods matters.
        tree = self.model_dump()
        if self.part is None:  # a plan of earlier releases keeps its hash
            del tree["part"]
        return json.dumps(tree, ensure_ascii=False, allow_nan=False, indent=indent)

    @property
    def coordinator_fingerprint(self) -> str:
        """``SHA256:...`` of the key with which the coordinator signs."""
        return key_fingerprint(self.coordinator.encode(), "the study plan's coordinator")

    def client_of(self, site: str) -> int | None:
        """The client id of a site; None if the plan does not list it."""
        place = self.place_of(site)
        return None if place is None else self.first_client + place

    def place_of(self, site: str) -> int | None:
        """A site's place in the list of sites; None if the plan does not list it."""
        return next((place for place, one in enumerate(self.sites) if one.name == site), None)

    @property
    def first_client(self) -> int:
        """Client id of the first site in the list."""
        return 0 if self.part is None else self.part.first

    @property
    def n_clients(self) -> int:
        """Number of clients that ids are given to: the listed ones, or the sites of all regions."""
        return len(self.sites) if self.part is None else self.part.of

    def run_config(self) -> RunConfig:
        """The configuration, validated against the parts installed here. Raises ConfigError."""
        return site_config(json.dumps(self.config, ensure_ascii=False))

    def expired(self, now: datetime | None = None) -> bool:
        """Whether the plan has expired."""
        return (now or datetime.now(UTC)) >= parse_time(self.expires)


def site_config(text: str) -> RunConfig:
    """Validate a configuration received over the network; `from_json` alone would import a model named by its path.

    Raises:
        ConfigError: it is not valid here, it names its model by an import path, it has a simulated attack or clock,
            a prior that follows arrivals, or a partition that draws what clients annotate or when classes appear.
    """
    try:
        model = json.loads(text)["model"]
        named = model.get("name") if "_target_" not in model else model["_target_"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            "the configuration does not name a model: send the output of fedimb.config.load.to_json"
        ) from None
    if "_target_" in model or not isinstance(named, str) or is_path(named):
        raise ConfigError(f"model '{named}' is an import path: sites build registered models only")
    config = from_json(text)
    if (name := config.attack["name"]) != "none":
        raise ConfigError(f"attack={name}: attacks are for simulated clients, not for real sites; set attack=none")
    check_pace(config)
    if config.prior.weighting == "arrived":
        raise ConfigError(
            "prior.weighting=arrived follows a simulated run's arrivals; between sites set prior.weighting=data"
        )
    if registry.flags("partition", config.partition["name"]).get("annotates"):
        raise ConfigError(
            f"partition={config.partition['name']} draws for simulated clients which classes they annotate; real sites "
            "declare it: set data.labels.annotated={SITE: [CLASS, ...]}, and another partition"
        )
    if phased := [p for p in (config.partition["name"],) if registry.flags("partition", p).get("phased")]:
        raise ConfigError(
            f"partition={phased[0]} says in which phase simulated clients see a class, and real sites' rows are not "
            "the server's to hold back; use another partition"
        )
    return config


def check_pace(config: RunConfig) -> None:
    """Refuse a pace that decides by a simulated clock, and what a simulated clock is set to.

    Raises:
        ConfigError: the setting, and what to set instead.
    """
    name, clients = config.pace["name"], config.clients
    if not registry.flags("pace", name).get("asynchronous"):
        if name != "sync" or config.pace.get("clock"):
            raise ConfigError(
                f"pace={name}: a pace with rounds decides by a simulated clock who is in time, and real sites have "
                "their own; set pace=sync and pace.clock=false (and clients.deadline_s, to leave late sites out of a "
                "step), or pace=buffered or fedasync, which take replies as they come"
            )
        return
    for one in fields(PaceSettings):
        if config.pace.get(one.name, one.default) != one.default:
            raise ConfigError(
                f"pace.{one.name}={config.pace[one.name]} is of a simulated clock, and real sites take the time they "
                f"take; leave it at {one.default}"
            )
    simulated = {"availability": 1.0, "dropout": 0.0, "slow": 0.0}
    for key, neutral in simulated.items():
        if getattr(clients, key) != neutral:
            raise ConfigError(
                f"clients.{key}={getattr(clients, key):g} simulates failures, and with pace={name} replies are taken "
                f"as sites send them; set clients.{key}={neutral:g}"
            )


def parse_time(text: str) -> datetime:
    """Parse ``2026-03-01T08:00:00Z``. Raises ConfigError if it is not a valid time."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"{text} is not a valid time: write it as 2026-12-31T00:00:00Z (UTC)") from None


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
    coordinator: str,
    sites: Mapping[str, str],
    runs: int = 1,
    limits: SiteLimits | None = None,
    part: RegionPart | None = None,
) -> StudyPlan:
    """Make a plan; its table is derived from the contracts.

    Args:
        coordinator: the public key with which the coordinator signs.
        sites: public key by site.
        The others are attributes of `StudyPlan`.

    Raises:
        ConfigError: a text, time or setting is not allowed in a plan.
    """
    if parse_time(expires) <= parse_time(created):
        raise ConfigError(f"the plan would expire before it starts ({expires}): give a later day")
    if unknown := set(minority) - set(classes):
        raise ConfigError(f"minority class '{min(unknown)}' is not one of the classes.{nearest(min(unknown), classes)}")
    site_config(to_json(config))
    check_vary(config, vary)
    sizes = sizes_of(config, len(classes), tuple(input_shape))
    tree = {
        "deployment": deployment, "purpose": purpose, "contacts": list(contacts), "created": created,
        "expires": expires, "release": {"fedimb": __version__, "bundle": bundle_sha()},
        "config": json.loads(to_json(config)), "config_sha": config_sha(config),
        "vary": {key: one.model_dump() for key, one in vary.items()}, "runs": runs, "tags": list(tags),
        "classes": list(classes),
        "minority": list(minority), "input_shape": list(input_shape), "sizes": sizes.model_dump(),
        "leaves": [row.model_dump() for row in outbound_records(config, sizes, most_rounds(config, vary), vary)],
        "limits": (limits or SiteLimits()).model_dump(),
        "coordinator": coordinator, "sites": [{"name": name, "key": sites[name]} for name in sorted(sites)],
    }  # fmt: skip
    plan = parse_settings(tree | ({} if part is None else {"part": part.model_dump()}), StudyPlan, "study plan")
    check_sites(plan, config)
    return plan


def check_sites(plan: StudyPlan, config: RunConfig) -> None:
    """Check the list of sites: sorted, each name and key once, as many as clients, enough for masked sums.

    Raises:
        ConfigError: names what is wrong.
    """
    listed = [site.name for site in plan.sites]
    if listed != sorted(set(listed)):
        raise ConfigError(f"the study plan's sites must be sorted, each listed once: {', '.join(listed)}")
    keys = [*(site.fingerprint for site in plan.sites), plan.coordinator_fingerprint]
    for place, one in enumerate(keys):
        if one in keys[:place]:
            twice = [*listed, "the coordinator"]
            raise ConfigError(
                f"{twice[keys.index(one)]} and {twice[place]} have the same key in the study plan ({one}): each makes "
                "its own"
            )
    if config.clients.regions is not None or plan.part is not None:
        _check_regions(plan, config)
    elif config.clients.count != len(listed):
        raise ConfigError(
            f"clients.count={config.clients.count}, but the study plan lists {len(listed)} sites "
            f"({', '.join(listed)}): set clients.count={len(listed)}, or name the sites with --sites"
        )
    if len(listed) < FEWEST_MASKED and (which := _masked(config)):
        raise ConfigError(
            f"{which} needs at least {FEWEST_MASKED} sites, because with two each reads the other's figures from the "
            f"sum; the study plan lists {len(listed)}: set prior.provenance=none or estimated, "
            "evaluation.secure=false and evaluation.temperature=false, and a method that sends no masked sums"
        )


def _check_regions(plan: StudyPlan, config: RunConfig) -> None:
    """The same of a plan for regions, or of a region's plan for its sites."""
    regions, part = config.clients.regions, plan.part
    if regions is not None and part is not None:
        raise ConfigError("a region's plan for its sites has clients.regions=null: regions of regions do not exist")
    if regions is not None and len(regions) != len(plan.sites):
        raise ConfigError(
            f"clients.regions={regions} has {len(regions)} regions, but the study plan lists {len(plan.sites)} "
            f"({', '.join(site.name for site in plan.sites)}): give the number of sites of each in this order, or name "
            "the regions with --sites"
        )
    if part is None:
        return
    if part.of != config.clients.count or part.first + len(plan.sites) > part.of:
        raise ConfigError(
            f"the plan's {len(plan.sites)} sites from client {part.first} on are not among the {config.clients.count} "
            "of clients.count: make it with fedimb region plan"
        )
    if len(plan.sites) < part.min_members:
        raise ConfigError(
            f"the plan lists {len(plan.sites)} sites, and the region's sum must be over {part.min_members} "
            "(clients.min_members): add sites"
        )


def _masked(config: RunConfig) -> str | None:
    if config.prior.provenance in ("secure_sum", "dp_sum"):
        return f"prior.provenance={config.prior.provenance}"
    if config.evaluation.secure:
        return "evaluation.secure=true"
    if config.evaluation.temperature:
        return "evaluation.temperature=true"
    for query, contract in queries_of(config).items():
        if contract.name in config.strategy and any(record.about == "masked" for record in contract.queries[query]):
            return f"strategy '{contract.name}', as it is set, sends masked sums and"
    return None


def read_plan(text: str, place: str = "study plan") -> StudyPlan:
    """Parse a plan as it was sent.

    Args:
        place: where it was read, for errors.

    Raises:
        ConfigError: it is not JSON or not a plan; names the part that is wrong.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"{place} has {len(text)} characters, more than the {_MOST_CHARACTERS} allowed")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is not JSON: {error}; give the plan.json that fedimb deploy plan wrote") from None
    if isinstance(tree, dict) and (tree.get("format", 1) == 1 or "runs" not in tree):
        raise ConfigError(
            f"{place} is of an earlier release, without the sites' keys and the number of runs: make a new plan "
            "with fedimb deploy plan, and have the sites approve it"
        )
    plan = parse_settings(tree, StudyPlan, place)
    parse_time(plan.created), parse_time(plan.expires)
    return plan


def mismatch(plan: StudyPlan) -> str | None:
    """Why this installation cannot run a plan, in words for the coordinator; None if it can.

    The table of what leaves is rebuilt here, so nobody can approve a table that the installed code does not follow.
    """
    release = Release(fedimb=__version__, bundle=bundle_sha())
    if plan.release != release:
        return f"it is for fedimb {plan.release.fedimb} ({plan.release.bundle[:8]}), installed is {release.fedimb} " + (
            f"({release.bundle[:8]}): install the same release"
        )
    try:
        config = plan.run_config()
        check_vary(config, plan.vary)
        check_sites(plan, config)
        sizes = sizes_of(config, len(plan.classes), tuple(plan.input_shape))
    except FedimbError as error:
        return f"its configuration is refused: {error}"
    if config_sha(config) != plan.config_sha or flatten(config) != flatten(_as_given(plan)):
        return "its configuration is not the one it names"
    if sizes != plan.sizes or (
        outbound_records(config, sizes, most_rounds(config, plan.vary), plan.vary) != plan.leaves
    ):
        return "its table of what leaves is not what the installed contracts say"
    return None


def _as_given(plan: StudyPlan) -> RunConfig:
    return RunConfig.model_validate(plan.config)


def check_config(plan: StudyPlan, config: RunConfig) -> None:
    """Check that the plan covers a run's configuration.

    Raises:
        ConfigError: names the first setting that differs but may not vary; the text contains settings only.
    """
    agreed, asked = flatten(plan.run_config()), flatten(config)
    for key in [*agreed, *(key for key in asked if key not in agreed)]:
        if key.split(".")[0] in NO_INFLUENCE or (key in agreed and key in asked and _equal(agreed[key], asked[key])):
            continue
        may = plan.vary.get(key)
        if key in agreed and key in asked and may is not None and may.allows(asked[key]):
            continue
        agreed_value = f"{may}" if may is not None else str(agreed.get(key, "no such setting"))
        raise ConfigError(
            f"study plan {plan.sha} does not cover {key}={asked.get(key, 'nothing')} (agreed: {agreed_value}); "
            "make another plan with fedimb deploy plan, and have the sites approve it"
        )


def _equal(one: Scalar, other: Scalar) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
