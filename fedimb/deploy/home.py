"""A node's folder: everything a site keeps, in one place that it alone owns.

```
st-anna/                 mode 0700
  node.yaml              what the site decides: who may coordinate, what may leave, limits, proxy
  key, key.pub           its identity, born here (EC P-384); the key never leaves
  ca.crt                 the coordinator's certificate authority, checked by its fingerprint out of band
  st-anna.join.json      what the coordinator is given: public
  data/                  registered data sets: descriptions, versions, hashes; never copies of records
  plans/                 study plans received, and the site's decisions about them
  outbox/                what waits to be released
  state/                 client state and working copies, by run
  cache/                 stores built from registered data
  audit.jsonl            every message that left, hashed line over line
  status.json            how the node is; node.prom the same for Prometheus
  flwr/, logs/           Flower's own folder, and the logs
```
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedimb.deploy.files import Folder, read_yaml
from fedimb.errors import ConfigError
from fedimb.schema import Strict

NODE_HOME = "FEDIMB_NODE_HOME"
"""Environment variable: the node's folder. Set by ``fedimb node run`` for everything it starts."""

SITE = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
"""What a site may be called: it becomes a file name, a node name and a label."""


class CoordinatorAddress(Strict):
    """Where the coordinator is. ``ca_fingerprint``: SHA-256 of ca.crt in hex, read out by a person."""

    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    ca_fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")


class SharingConfig(Strict):
    """What may leave this site, whatever a plan asks for. ``min_patients``: no statistic of fewer."""

    class_counts: bool = True
    synthetic: bool = True
    individual: bool = False
    min_patients: int = Field(default=0, ge=0)


class LimitsConfig(Strict):
    """What a node may use. ``hours``: as in ``20:00-06:00``, local time; outside them it is absent by plan."""

    cpus: Annotated[int, Field(ge=1)] | None = None
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    gpu_share: Annotated[float, Field(gt=0, le=1)] | None = None
    disk_gb: Annotated[float, Field(gt=0)] | None = None
    hours: Annotated[str, Field(pattern=r"^\d\d:\d\d-\d\d:\d\d$")] | None = None


class NodeConfig(Strict):
    """node.yaml."""

    site: str = Field(pattern=SITE)
    coordinator: CoordinatorAddress | None = None
    sharing: SharingConfig = SharingConfig()
    release: Literal["manual", "auto"] = "manual"
    limits: LimitsConfig = LimitsConfig()
    proxy: str | None = None
    ca_bundle: str | None = None
    absent: list[str] = Field(default_factory=list)


class NodeHome(Folder):
    """A node's folder.

    Args:
        root: the folder; made by `fedimb node init`.
    """

    @staticmethod
    def open(root: str | Path | None = None) -> "NodeHome":
        """An existing folder; None: $FEDIMB_NODE_HOME, else the working folder. Raises ConfigError if it is none."""
        home = NodeHome(Path(root or os.environ.get(NODE_HOME) or ".").expanduser().absolute())
        if not home.file("node.yaml").is_file():
            raise ConfigError(f"{home.root} is no node's folder (no node.yaml): make one with fedimb node init SITE")
        return home

    @cached_property
    def config(self) -> NodeConfig:
        """node.yaml, checked."""
        return read_yaml(self.file("node.yaml"), NodeConfig)

    @property
    def site(self) -> str:
        """The site's name."""
        return self.config.site
