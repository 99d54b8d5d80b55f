"""A node's folder: everything a site keeps, in one private place.

```
st-anna/                 mode 0700
  node.yaml              what the site decides: who may coordinate, what may leave, limits, proxy
  key, key.pub           its identity, generated here (EC P-384); the private key never leaves
  ca.crt                 the coordinator's certificate authority; its fingerprint was confirmed by telephone
  st-anna.join.json      what is sent to the coordinator; contains no secret
  data/                  registered data sets: descriptions, versions, hashes; never copies of records
  plans/                 study plans received, and the site's decisions about them
  outbox/                synthetic samples waiting for release
  state/                 client state and working copies, by run
  cache/                 stores built from registered data
  audit.jsonl            every message that left, as a hash chain
  ledger.jsonl           what was asked about each data set, over all runs; every audit line has its hash
  status.json            the node's state; node.prom is the same for Prometheus
  flwr/, logs/           Flower's own folder, and logs
```
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from fedimb.deploy.files import Folder, read_yaml
from fedimb.deploy.pki import check_host
from fedimb.deploy.planned_times import parse_absences, parse_hours
from fedimb.errors import ConfigError
from fedimb.schema import Strict

NODE_HOME = "FEDIMB_NODE_HOME"
"""Environment variable: the node's folder. Set by ``fedimb node run`` for everything it starts."""

SITE = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
"""Pattern of a site's name, which becomes a file name, a node name and a label."""


class CoordinatorAddress(Strict):
    """Where the coordinator is.

    Attributes:
        host, port: where its nginx listens.
        ca_fingerprint: SHA-256 of ca.crt in hex, confirmed by telephone.
    """

    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    ca_fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("host")
    @classmethod
    def _name(cls, host: str) -> str:
        return check_host(host)


class SharingConfig(Strict):
    """What may leave this site, whatever a plan asks for.

    Attributes:
        class_counts: rows or patients per class.
        synthetic: samples from generators trained here.
        individual: records about a single patient or row.
        min_patients: no statistic over fewer patients leaves.
    """

    class_counts: bool = True
    synthetic: bool = True
    individual: bool = False
    min_patients: int = Field(default=0, ge=0)


class LimitsConfig(Strict):
    """What resources a node may use; None means no limit.

    Attributes:
        cpus: number of cores.
        memory_gb: GB of memory per process.
        gpu_share: fraction of a GPU's memory.
        disk_gb: largest size of the node's folder in GB.
        hours: local time, as in ``20:00-06:00``; outside it the node is absent by plan.
    """

    cpus: Annotated[int, Field(ge=1)] | None = None
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    gpu_share: Annotated[float, Field(gt=0, le=1)] | None = None
    disk_gb: Annotated[float, Field(gt=0)] | None = None
    hours: Annotated[str, Field(pattern=r"^\d\d:\d\d-\d\d:\d\d$")] | None = None

    @field_validator("hours")
    @classmethod
    def _times(cls, hours: str | None) -> str | None:
        if hours is not None:
            parse_hours(hours)
        return hours


class BudgetConfig(Strict):
    """What may be asked about one data set in all, over all plans and versions; None means that only plans limit it.

    Attributes:
        rounds: training rounds.
        queries: other messages.
        samples: synthetic rows sent.
        days: rounds, queries and samples of this many days count; None: all.
        epsilon: privacy loss of noisy updates, and of noisy counts, each with the site's own share of the noise.
        delta: the delta of that epsilon.
        sum_sets: number of different sets of sites that masked sums may be over, about training or validation rows: two
            sums can be subtracted.
    """

    rounds: Annotated[int, Field(ge=0)] | None = None
    queries: Annotated[int, Field(ge=0)] | None = None
    samples: Annotated[int, Field(ge=0)] | None = None
    days: Annotated[int, Field(ge=1)] | None = None
    epsilon: Annotated[float, Field(gt=0, le=100)] | None = None
    delta: float = Field(default=1e-5, gt=0, lt=1)
    sum_sets: int = Field(default=1, ge=1)


class NodeConfig(Strict):
    """Settings of a node, as written in node.yaml."""

    site: str = Field(pattern=SITE)
    coordinator: CoordinatorAddress | None = None
    sharing: SharingConfig = SharingConfig()
    budget: BudgetConfig = BudgetConfig()
    release: Literal["manual", "auto"] = "manual"
    limits: LimitsConfig = LimitsConfig()
    proxy: str | None = None
    ca_bundle: str | None = None
    absent: list[str] = Field(default_factory=list)

    @field_validator("absent")
    @classmethod
    def _days(cls, absent: list[str]) -> list[str]:
        parse_absences(absent)
        return absent


class NodeHome(Folder):
    """A node's folder.

    Args:
        root: the folder that `fedimb node init` created.
    """

    @staticmethod
    def open(root: str | Path | None = None) -> "NodeHome":
        """Open an existing folder (default: $FEDIMB_NODE_HOME, else the working folder).

        Raises:
            ConfigError: it is not a node's folder.
        """
        home = NodeHome(Path(root or os.environ.get(NODE_HOME) or ".").expanduser().absolute())
        if not home.file("node.yaml").is_file():
            raise ConfigError(
                f"{home.root} is not a node's folder (no node.yaml): give --home DIR or set {NODE_HOME}; a new "
                "one is made by fedimb node init SITE"
            )
        return home

    @cached_property
    def config(self) -> NodeConfig:
        """The validated settings of node.yaml."""
        return read_yaml(self.file("node.yaml"), NodeConfig)

    @property
    def site(self) -> str:
        """The site's name."""
        return self.config.site
