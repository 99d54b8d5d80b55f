"""A deployment's folder at the coordinator: made by ``fedimb deploy init``, read by every other ``deploy`` verb.

```
heart-study/             mode 0700
  deploy.yaml            name, public host and port, SuperLink's port on loopback
  ca.key, ca.crt         the certificate authority; ca.key signs the server's certificate and nothing else
  server.key, server.pem what nginx and SuperLink show
  nginx.conf             forwards the Fleet API to sites and nothing else
  *.service, README.md   systemd units and the steps for real machines
  sites/<site>.join.json what each site sent: public
  plans/<id>/            study plans
  runs/                  run folders
  flwr/, state/, logs/   Flower's folder, SuperLink's database, logs
```
"""

from functools import cached_property
from pathlib import Path

from pydantic import Field

from fedimb.deploy.files import Folder, read_yaml
from fedimb.deploy.home import SITE
from fedimb.errors import ConfigError
from fedimb.schema import Strict


class DeployConfig(Strict):
    """deploy.yaml. ``host`` and ``port``: where sites reach nginx. ``superlink_port``: on 127.0.0.1 only."""

    name: str = Field(pattern=SITE)
    host: str = Field(min_length=1)
    port: int = Field(default=9443, ge=1, le=65535)
    superlink_port: int = Field(default=9092, ge=1, le=65535)


class Deployment(Folder):
    """A deployment's folder."""

    @staticmethod
    def open(root: str | Path) -> "Deployment":
        """An existing folder. Raises ConfigError if it is none."""
        found = Deployment(Path(root).expanduser().absolute())
        if not found.file("deploy.yaml").is_file():
            raise ConfigError(
                f"{found.root} is no deployment's folder (no deploy.yaml): fedimb deploy init NAME --host H"
            )
        return found

    @cached_property
    def config(self) -> DeployConfig:
        """deploy.yaml, checked."""
        return read_yaml(self.file("deploy.yaml"), DeployConfig)

    def sites(self) -> tuple[str, ...]:
        """Names of the sites added, sorted: a client's id is its place in this list when a run begins."""
        return tuple(sorted(path.name.removesuffix(".join.json") for path in self.file("sites").glob("*.join.json")))
