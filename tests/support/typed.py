"""A small study as people type it: servers and nodes are processes of ``fedimb deploy up`` and ``fedimb node run``."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from deployed import Study, until
from ill_or_well import small_words

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.deploy.coordinator.submit import find_plan
from fedimb.deploy.demo import Demo
from fedimb.rundir.folder import RunFolder

WAITING = 75


@dataclass
class Typed:
    """A study whose servers and nodes run.

    Attributes:
        study: made by `small_study`; its first plan is known to nobody yet.
        shell: runs commands.
    """

    study: Study
    shell: Demo

    def planned(self, *overrides: str) -> Study:
        """Another plan of the same sites and tables, written by ``fedimb deploy plan``."""
        homes = self.study.homes
        words = [*small_words({site: self.shell.root / f"{site}.csv" for site in homes}), f"clients.count={len(homes)}"]
        words += ["tracking=none", *overrides]
        about = ("--purpose", "Ein Versuch", "--contact", "Dr. Jürgen Müller", "--expires", "2099-12-31")
        rest = ("--tags", "heads", "--vary", "seed", "--deployment", str(self.shell.coordinator))
        said = self.shell.run_command("deploy", "plan", *words, *about, *rest)
        plan = find_plan(self.study.deployment, re.findall(r"[0-9a-f]{64}", said)[0])
        return replace(self.study, config=validate(compose((), shared=words)), plan=plan)

    def run(self, *words: str, expect: int = 0) -> str:
        """What ``fedimb deploy run`` says, and that it ends with that exit code."""
        return self.shell.run_command(
            "deploy", "run", *words, "--deployment", str(self.shell.coordinator), expect=expect
        )

    def resume(self, folder: RunFolder, expect: int = 0) -> str:
        """What ``fedimb deploy run --resume`` says."""
        return self.run("--resume", str(folder.path), expect=expect)

    def agreed(self, study: Study, expect: int = WAITING) -> tuple[RunFolder, str]:
        """A run begun, approved by every site, and resumed; with what it said then."""
        item = study.plan.sha
        folder = named_in(self.run(item, expect=WAITING))
        for site in study.homes:
            self.at(site, "approve", f"plan-{item}", "--by", "Dr. Test")
        return folder, self.resume(folder, expect)

    def at(self, site: str, *words: str, expect: int = 0) -> str:
        """What ``fedimb node ...`` says at a site."""
        return self.shell.run_command("node", *words, "--home", str(self.study.homes[site].root), expect=expect)

    def nodes(self) -> dict[str, int]:
        """Process id of each site's SuperNode."""
        return {site: int(self.study.status(site)["node"]) for site in self.study.homes}


def named_in(said: str) -> RunFolder:
    """The run folder that a run which did not finish names for going on."""
    (path,) = re.findall(r"continue with: fedimb deploy run --resume (.+)", said)
    return RunFolder.open(Path(path))


@contextlib.contextmanager
def typed(study: Study) -> Iterator[Typed]:
    """The servers and all nodes, each a process of its own; ended by id at the end of the block."""
    root = study.deployment.root.parent
    shell = Demo(root, root, quiet=True)
    with shell.servers():
        for site in study.homes:
            shell.start_command("node", "run", "--home", str(study.homes[site].root))
        for site in study.homes:
            until(lambda site=site: study.status(site), lambda now: now.get("state") == "running", 180)
        yield Typed(study, shell)
