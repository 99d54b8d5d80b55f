"""A deployment's folder at the coordinator: ``fedimb deploy init`` makes it, all other ``deploy`` commands read it.

```
heart-study/             mode 0700
  deploy.yaml            name, public host and port, SuperLink's port on loopback
  ca.key, ca.crt         the certificate authority; ca.key signs the server's certificate and nothing else
  server.key, server.pem the key and certificate of nginx and SuperLink
  sign.key               signs the messages to the sites, which know its public key from the plan
  nginx.conf             forwards the Fleet API to sites and nothing else
  *.service, README.md   systemd units and the steps for real machines
  sites/<site>.join.json what each site sent; contains no secret
  plans/<id>/            study plans
  runs/                  run folders
  flwr/, state/, logs/   Flower's folder, SuperLink's database, logs
```
"""

from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator

from fedimb.deploy.files import Folder, read_yaml, refuse_readable, write_private
from fedimb.deploy.home import SITE
from fedimb.deploy.pki import check_host, make_site_key, public_line
from fedimb.deploy.signing import load_key
from fedimb.errors import ConfigError
from fedimb.schema import Strict


class TrafficLimits(Strict):
    """What nginx lets sites and strangers send.

    Attributes:
        body_mb: largest body of a call in MB. Arrays travel in pieces of 5.2 MB, whatever the model's size.
        calls_at_once: calls of one site, at one address, that are under way at once.
        calls_per_s: calls of one site, at one address, per second in the long run; ten times as many are let through
            at once, and up to a hundred times as many wait. None: the sites share what a SuperLink answers.
        stranger_calls_per_s: calls per second of one address without a site's key; all such addresses have ten times
            as many together.
        header_s: seconds in which the TLS handshake, and then a call's header, must be complete.
        body_s: longest pause in seconds between two pieces of a body, or of a response that a site takes.
        connections: connections that each of nginx's two workers holds; a call that is let through needs three.
    """

    body_mb: int = Field(default=8, ge=1, le=1024)
    calls_at_once: int = Field(default=6, ge=4, le=1000)
    calls_per_s: int | None = Field(default=None, ge=1, le=100_000)
    stranger_calls_per_s: int = Field(default=5, ge=1, le=10_000)
    header_s: int = Field(default=10, ge=1, le=600)
    body_s: int = Field(default=30, ge=1, le=600)
    connections: int = Field(default=8192, ge=64, le=1_000_000)


class DeployConfig(Strict):
    """Settings of a deployment, as written in deploy.yaml.

    Attributes:
        name: the deployment's name.
        host, port: where sites reach nginx.
        superlink_port: where the SuperLink listens, on 127.0.0.1 only.
        limits: what nginx lets through.
    """

    name: str = Field(pattern=SITE)
    host: str = Field(min_length=1)
    port: int = Field(default=9443, ge=1, le=65535)
    superlink_port: int = Field(default=9092, ge=1, le=65535)
    limits: TrafficLimits = TrafficLimits()

    @field_validator("host")
    @classmethod
    def _name(cls, host: str) -> str:
        return check_host(host)


class Deployment(Folder):
    """A deployment's folder."""

    @staticmethod
    def open(root: str | Path) -> "Deployment":
        """Open an existing folder. Raises ConfigError if it is not a deployment's."""
        found = Deployment(Path(root).expanduser().absolute())
        if not found.file("deploy.yaml").is_file():
            raise ConfigError(
                f"{found.root} is not a deployment's folder (no deploy.yaml): give --deployment DIR; a new one is "
                "made by fedimb deploy init NAME --host H"
            )
        return found

    @staticmethod
    def of_run(folder: Path) -> "Deployment":
        """The deployment whose folder holds a run folder. Raises ConfigError if none does."""
        for above in folder.absolute().parents:
            if (above / "deploy.yaml").is_file():
                return Deployment(above)
        raise ConfigError(f"{folder} is not in a deployment's folder: a deployed run works in its deployment only")

    def signing_key(self) -> str:
        """The public key with which messages to sites are signed, one line in OpenSSH format."""
        path = self.file("sign.key")
        if not path.exists():  # a deployment of an earlier release
            write_private(path, make_site_key()[0])
        refuse_readable(path)
        return public_line(load_key(path)).decode("ascii").strip()

    @cached_property
    def config(self) -> DeployConfig:
        """The validated settings of deploy.yaml."""
        return read_yaml(self.file("deploy.yaml"), DeployConfig)

    def sites(self) -> tuple[str, ...]:
        """Sorted names of the sites that were added. A client's id is its index in this list when a run starts."""
        return tuple(sorted(path.name.removesuffix(".join.json") for path in self.file("sites").glob("*.join.json")))
