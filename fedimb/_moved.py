"""New locations of the modules of fedimb 0.1: for one release the old import paths still work, and warn with the new
one.

A finder at the end of `sys.meta_path` handles only modules that no other finder finds; nothing is imported before an
old path is. Names that changed with their module are translated too.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "aggregators.local_terms": "aggregators.local_objectives",
    "app": "clientapp.app",
    "cli.checks": "deploy.checks",
    "cli.panel": "report.panel",
    "config.arguments": "registry.arguments",
    "config.schema": "schema",
    "config.target": "registry.targets",
    "data.sources.progress": "data.sources.files",
    "deploy.approvals": "deploy.site.approvals",
    "deploy.check": "deploy.site.check",
    "deploy.commitment": "deploy.registered_data.commitment",
    "deploy.data_checks": "deploy.site.data_checks",
    "deploy.data_facts": "deploy.registered_data.data_facts",
    "deploy.data_settings": "deploy.registered_data.data_settings",
    "deploy.data_version": "deploy.registered_data.data_version",
    "deploy.datasets": "deploy.registered_data.datasets",
    "deploy.deployment": "deploy.coordinator.deployment",
    "deploy.drafting": "deploy.coordinator.drafting",
    "deploy.federation": "deploy.coordinator.federation",
    "deploy.founding": "deploy.coordinator.creation",
    "deploy.grid": "deploy.coordinator.site_grid",
    "deploy.guard": "deploy.site.guard",
    "deploy.inbox": "deploy.site.inbox",
    "deploy.leaving": "deploy.study_plan.outbound_records",
    "deploy.limits": "deploy.site.limits",
    "deploy.merkle": "deploy.registered_data.merkle",
    "deploy.node_app": "deploy.site.node_app",
    "deploy.node_door": "deploy.site.egress_filter",
    "deploy.node_process": "deploy.site.node_process",
    "deploy.observe": "deploy.site.observe",
    "deploy.pairwise": "deploy.site.pairwise_masks",
    "deploy.people": "deploy.site.site_overrides",
    "deploy.pins": "deploy.registered_data.pins",
    "deploy.plan_checks": "deploy.coordinator.plan_checks",
    "deploy.plan_page": "deploy.study_plan.page",
    "deploy.plans": "deploy.study_plan.plan",
    "deploy.purge": "deploy.site.purge",
    "deploy.ranges": "deploy.study_plan.ranges",
    "deploy.reach": "deploy.site.reach",
    "deploy.record_lists": "deploy.registered_data.record_lists",
    "deploy.records": "deploy.registered_data.source_records",
    "deploy.registration": "deploy.coordinator.registration",
    "deploy.screen": "deploy.coordinator.screen",
    "deploy.serve": "deploy.coordinator.serve",
    "deploy.servers": "deploy.coordinator.servers",
    "deploy.sharing": "deploy.site.sharing",
    "deploy.status": "deploy.site.status",
    "deploy.submit": "deploy.coordinator.submit",
    "deploy.superlink": "deploy.coordinator.superlink",
    "deploy.supernode": "deploy.site.supernode",
    "deploy.supervisor": "deploy.site.supervisor",
    "deploy.switches": "deploy.process_env",
    "deploy.withdraw": "deploy.site.withdraw",
    "deploy.withdrawn": "deploy.registered_data.withdrawn",
    "engine.settings": "config.engine_settings",
    "generation.checks": "generation.examples",
    "generation.labels": "generation.batches",
    "generation.plan": "generation.sharing_plan",
    "generation.sheet": "generation.preview",
    "generation.workshop": "generation.generator_cache",
    "models.norms": "models.blocks",
    "privacy.audit.base": "privacy.audit.types",
    "privacy.audit.checks": "privacy.audit.class_tests",
    "privacy.door": "privacy.egress_filter",
    "privacy.outbox": "generation.outbox",
    "privacy.outbox.box": "generation.outbox.box",
    "privacy.outbox.contents": "generation.outbox.contents",
    "privacy.outbox.sheet": "generation.outbox.sheet",
    "report.text": "text",
    "run.aggregator": "serverapp.aggregator",
    "run.assemble": "serverapp.assemble",
    "run.checkpoint": "serverapp.checkpoint",
    "run.client": "clientapp.runtime",
    "run.client_scores": "serverapp.client_scores",
    "run.context": "clientapp.context",
    "run.environment": "rundir.environment",
    "run.estimate": "serverapp.estimate",
    "run.evaluate": "serverapp.evaluate",
    "run.exchange": "serverapp.exchange",
    "run.folder": "rundir.folder",
    "run.further": "serverapp.auxiliary_model",
    "run.headline": "serverapp.finish",
    "run.launch": "serverapp.launch",
    "run.local_training": "clientapp.local_training",
    "run.loop": "serverapp.loop",
    "run.memory": "serverapp.method_state",
    "run.model_file": "rundir.model_file",
    "run.opened": "clientapp.runtime",
    "run.parts": "config.parts",
    "run.plain_server": "serverapp.plain_server",
    "run.priors": "serverapp.class_prior",
    "run.progress": "serverapp.progress",
    "run.result": "rundir.result",
    "run.roster": "serverapp.client_sampler",
    "run.rounds": "serverapp.loop",
    "run.server": "serverapp.server",
    "run.start": "rundir.manifest",
    "run.state": "clientapp.state",
    "run.steps": "serverapp.steps",
    "run.view": "serverapp.context",
    "selection.local_priors": "selection.queries.local_priors",
    "selection.queries.distillation": "selection.queries.base",
    "server": "serverapp.app",
    "study.plan": "study.design",
    "study.statistics_text": "report.statistics_text",
    "study.tables": "report.study_tables",
    "tracking.names": "tracking.projection",
    "training.arguments": "registry.arguments",
    "training.losses.arguments": "training.losses.base",
    "training.losses.targets": "training.losses.base",
    "training.terms": "training.objectives",
    "training.terms.base": "training.objectives.base",
    "training.terms.compensation": "training.objectives.compensation",
    "training.terms.control_variate": "training.objectives.control_variate",
    "training.terms.distil": "training.objectives.distil",
    "training.terms.moon": "training.objectives.moon",
    "training.terms.proximal": "training.objectives.proximal",
    "training.terms.taught": "training.objectives.taught",
}
"""Old module -> new module, both within fedimb."""

RENAMED = {
    "RunView": "RunContext",
    "Keeper": "Checkpointer",
    "FolderKeeper": "FolderCheckpointer",
    "Roster": "ClientSampler",
    "Further": "AuxiliaryModel",
    "Opened": "PendingMessage",
    "Done": "PrefetchedReply",
    "Recipe": "GeneratorConfig",
    "Workshop": "GeneratorCache",
    "Order": "Instruction",
    "Answer": "ClientReply",
    "LocalTerm": "LocalObjective",
}
"""Classes that were renamed when their module moved."""


class _Moved(ModuleType):
    """An old path: attributes are looked up in the module's new location."""

    def __getattr__(self, name: str) -> Any:
        new = importlib.import_module(f"fedimb.{MOVED[self.__name__.partition('.')[2]]}")
        if name.startswith("__") or not hasattr(new, RENAMED.get(name, name)):
            return getattr(new, name)
        return getattr(new, name if hasattr(new, name) else RENAMED[name])


class _Run(_Moved):
    """``fedimb.run``: a function, and in 0.1 a package, which hides the function once an old path in it is imported."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"fedimb.run is a function; {name!r} of the package of that name in 0.1 is in "
            "fedimb.serverapp, fedimb.clientapp or fedimb.rundir"
        )

    def __call__(self, *args: Any, **options: Any) -> Any:
        return sys.modules["fedimb"].__getattr__("run")(*args, **options)  # this module has taken its name


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = (_Run if spec.name == "fedimb.run" else _Moved)(spec.name)
        if spec.submodule_search_locations is not None:
            module.__path__ = []  # not the new package's: its files would be imported again under the old name
        return module

    def exec_module(self, module: ModuleType) -> None:
        if (new := MOVED.get(module.__name__.partition(".")[2])) is not None:
            text = f"{module.__name__} has moved to fedimb.{new}; the old path will be removed in the next release"
            warnings.warn(text, DeprecationWarning, stacklevel=2)


class MovedFinder(MetaPathFinder):
    """Finds the old paths, after all other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old path within fedimb, else None."""
        top, _, inner = fullname.partition(".")
        if top != "fedimb" or not (inner == "run" or inner in MOVED):
            return None
        package = any(old.startswith(inner + ".") for old in MOVED)
        return ModuleSpec(fullname, _Loader(), is_package=package)


def install() -> None:
    """Install the finder, once."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
