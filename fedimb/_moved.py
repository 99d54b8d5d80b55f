"""New locations of the modules of fedimb 0.1: for one release the old import paths still work, and warn with the new
one.

A finder at the end of `sys.meta_path` handles only modules that no other finder finds; nothing is imported before an
old path is. Classes and functions with a new name work under the old one too, in modules that moved and in those that
did not, and warn.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

MOVED = {
    "aggregators.local_terms": "aggregators.local_objectives",
    "app": "clientapp.app",
    "bench.bare_workers": "bench.bare",
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
    "annotation.label_studio.interface": "annotation.label_studio.interface_xml",
    "annotation.label_studio.tasks": "annotation.label_studio.tasks_json",
    "annotation.returned.Given": "annotation.returned.ReaderAnswer",
    "annotation.status.check": "annotation.status.check_file",
    "annotation.status.cycles": "annotation.status.cycle_statuses",
    "annotation.status.worklists": "annotation.status.find_worklists",
    "annotation.worklist.look": "annotation.worklist.read_outcome",
    "annotation.worklist.ready": "annotation.worklist.is_ready",
    "app.ahead_of": "engine.lanes.ahead_of",
    "cli.checks.switches": "deploy.checks.environment_variables",
    "cli.demo.demo": "cli.demo_tables.demo",
    "cli.demo.label_study": "cli.demo_tables.label_study",
    "cli.demo.server_study": "cli.demo_tables.server_study",
    "cli.demo.study_of": "cli.demo_tables.study_of",
    "cli.new.new_strategy": "cli.new.new_part",
    "cli.report.read": "cli.report.find_study",
    "cli.study.cores": "bench.report.cores",
    "cli.study.default_hands": "cli.study.default_workers",
    "cli.study.hands": "cli.study.workers",
    "cli.verbs.register_folder": "cli.verbs.register_actions",
    "data.check.cut": "data.check.describe_cut",
    "data.check.guess": "data.check.guess_source",
    "data.check.load": "data.check.load_source",
    "data.check.read": "data.check.read_source",
    "data.federation_file.read": "data.federation_file.read_federation",
    "data.federation_file.write": "data.federation_file.write_federation",
    "data.paths.find": "data.paths.find_data",
    "data.quotas.deal": "data.quotas.deal_units",
    "data.sources.dicom_grey.reader": "data.sources.dicom_grey.load_pydicom",
    "data.sources.dicom_grey.window": "data.sources.dicom_grey.apply_window",
    "data.sources.digits_devices.seen": "data.sources.digits_devices.apply_device",
    "data.sources.files.regular": "data.sources.files.regular_file",
    "data.sources.npz_file.class_ids": "data.sources.npz_labels.class_ids",
    "data.sources.npz_file.labels": "data.sources.npz_labels.read_labels",
    "data.sources.npz_file.values": "data.sources.npz_file.read_values",
    "data.sources.table_target.canonical": "data.identifiers.identifier",
    "data.sources.pictures.pillow": "data.sources.pictures.load_pillow",
    "data.sources.progress.shown": "data.sources.files.with_progress",
    "data.units.group": "data.units.group_units",
    "deploy.approvals.approved": "deploy.site.approvals.approved_plan",
    "deploy.approvals.decide": "deploy.site.approvals.decide_plan",
    "deploy.approvals.decision": "deploy.site.approvals.read_decision",
    "deploy.approvals.load": "deploy.site.approvals.load_plan",
    "deploy.approvals.receive": "deploy.site.approvals.receive_plan",
    "deploy.approvals.received": "deploy.site.approvals.received_plans",
    "deploy.approvals.record": "deploy.site.approvals.log_decision",
    "deploy.approvals.require": "deploy.site.approvals.require_approval",
    "deploy.approvals.state": "deploy.site.approvals.plan_state",
    "deploy.audit_chain.fault_of": "deploy.audit_chain.line_fault",
    "deploy.audit_chain.parsed_line": "deploy.audit_chain.parse_line",
    "deploy.audit_chain.sha_of": "deploy.audit_chain.line_sha",
    "deploy.audit_chain.text_of": "deploy.audit_chain.canonical_json",
    "deploy.audit_chain.told_fault": "deploy.audit_chain.heads_fault",
    "deploy.check.facts": "deploy.site.check.report",
    "deploy.check.fit": "deploy.site.check.all_pass",
    "deploy.commitment.keyed": "deploy.registered_data.commitment.keyed_hash",
    "deploy.commitment.marks": "deploy.registered_data.commitment.mark_records",
    "deploy.data_checks.against": "deploy.site.data_checks.plan_checks",
    "deploy.data_checks.holdings": "deploy.site.data_checks.describe_holdings",
    "deploy.data_version.watched": "deploy.registered_data.data_version.watched_paths",
    "deploy.datasets.find": "deploy.registered_data.datasets.find_data_set",
    "deploy.datasets.named": "deploy.registered_data.datasets.open_data_set",
    "deploy.drafting.data_facts": "deploy.coordinator.drafting.describe_data",
    "deploy.drafting.last_moment": "deploy.coordinator.drafting.end_of_day",
    "deploy.files.parsed": "deploy.files.parse_settings",
    "deploy.founding.found": "deploy.coordinator.creation.create_deployment",
    "deploy.founding.renew": "deploy.coordinator.creation.renew_certificate",
    "deploy.founding.warnings": "deploy.coordinator.creation.expiry_warnings",
    "deploy.grid.Waits": "deploy.coordinator.site_grid.Timeouts",
    "deploy.inbox.answer": "deploy.site.inbox.decide_item",
    "deploy.inbox.items": "deploy.site.inbox.inbox_items",
    "deploy.incidents.masked": "deploy.incidents.masked_incident",
    "deploy.joining.add_site": "deploy.coordinator.sites.add_site",
    "deploy.joining.init_node": "deploy.site.identity.init_node",
    "deploy.joining.joined": "deploy.coordinator.sites.joined_sites",
    "deploy.joining.new_folder": "deploy.files.new_folder",
    "deploy.joining.new_identity": "deploy.site.identity.new_identity",
    "deploy.joining.remove_site": "deploy.coordinator.sites.remove_site",
    "deploy.joining.rotate": "deploy.coordinator.sites.rotate_key",
    "deploy.leaving.Leaving": "deploy.study_plan.outbound_records.OutboundRecord",
    "deploy.leaving.leaving": "deploy.study_plan.outbound_records.outbound_records",
    "deploy.limits.absence": "deploy.site.limits.planned_absence",
    "deploy.limits.apply": "deploy.site.limits.apply_limits",
    "deploy.limits.disk": "deploy.site.limits.disk_usage",
    "deploy.limits.periods": "deploy.planned_times.parse_absences",
    "deploy.limits.window": "deploy.planned_times.parse_hours",
    "deploy.node_app.answer": "deploy.site.node_app.handle_message",
    "deploy.node_app.begin": "deploy.site.node_app.join_run",
    "deploy.node_app.found": "deploy.site.node_app.load_run",
    "deploy.node_app.here": "deploy.site.node_app.local_node",
    "deploy.node_door.described": "deploy.site.egress_filter.record_facts",
    "deploy.node_door.node_door": "deploy.site.egress_filter.egress_filter",
    "deploy.node_door.take_head": "deploy.coordinator.site_grid.pop_audit_head",
    "deploy.node_process.Patience": "deploy.site.node_process.Timings",
    "deploy.node_process.Said": "deploy.site.node_process.ProcessLog",
    "deploy.node_process.end_politely": "deploy.site.node_process.terminate_process",
    "deploy.node_process.explained": "deploy.site.node_process.explain_exit",
    "deploy.observe.Observed": "deploy.site.observe.Observation",
    "deploy.observe.ask": "deploy.site.observe.check_coordinator",
    "deploy.offline.described": "deploy.offline.package_facts",
    "deploy.offline.needed": "deploy.offline.required_packages",
    "deploy.people.of_the_site": "deploy.site.site_overrides.apply_site_overrides",
    "deploy.people.waits": "deploy.site.site_overrides.needs_person",
    "deploy.pins.decided": "deploy.registered_data.pins.apply_decision",
    "deploy.pins.pin": "deploy.registered_data.pins.pin_run",
    "deploy.pins.pinned": "deploy.registered_data.pins.pinned_version",
    "deploy.pins.pins": "deploy.registered_data.pins.read_pins",
    "deploy.pki.plain_digest": "deploy.pki.parse_fingerprint",
    "deploy.pki.spoken": "deploy.pki.format_fingerprint",
    "deploy.plan_page.shown_bytes": "deploy.study_plan.page.format_bytes",
    "deploy.plans.moment": "deploy.study_plan.plan.parse_time",
    "deploy.purge.doomed": "deploy.site.purge.dependents",
    "deploy.record_lists.Listed": "deploy.registered_data.record_lists.RecordPlace",
    "deploy.record_lists.listed": "deploy.registered_data.record_lists.list_records",
    "deploy.records.absolute": "deploy.registered_data.source_records.absolute_paths",
    "deploy.records.matching": "deploy.registered_data.source_records.find_record",
    "deploy.records.read": "deploy.registered_data.source_records.read_source",
    "deploy.registration.nodes": "deploy.coordinator.registration.list_nodes",
    "deploy.registration.register": "deploy.coordinator.registration.register_site",
    "deploy.registration.registered": "deploy.coordinator.registration.registered_sites",
    "deploy.screen.screened": "deploy.coordinator.screen.screen_replies",
    "deploy.status.iso": "deploy.site.status.format_iso",
    "deploy.status.judged": "deploy.site.status.judge",
    "deploy.status.read": "deploy.site.status.read_status",
    "deploy.status.seconds": "deploy.site.status.parse_iso",
    "deploy.status.write": "deploy.site.status.write_status",
    "deploy.submit.new_run": "deploy.coordinator.submit.create_run",
    "deploy.superlink.compact": "deploy.coordinator.superlink.compact_database",
    "deploy.superlink.listening": "deploy.coordinator.superlink.listening_sockets",
    "deploy.superlink.neutral": "deploy.coordinator.superlink.isolated_environment",
    "deploy.superlink.reachable": "deploy.coordinator.superlink.reachable_sockets",
    "deploy.supernode.environment": "deploy.site.supernode.node_environment",
    "deploy.supernode.neutral": "deploy.site.supernode.isolated_environment",
    "deploy.supernode.recorded": "deploy.site.supernode.recorded_process",
    "deploy.supernode.roots": "deploy.site.supernode.trusted_roots",
    "deploy.units.deploy_unit": "deploy.coordinator.units.deploy_unit",
    "deploy.units.deployment_readme": "deploy.coordinator.units.deployment_readme",
    "deploy.units.node_unit": "deploy.site.units.node_unit",
    "deploy.units.node_yaml": "deploy.site.units.node_yaml",
    "deploy.units.unit_name": "deploy.coordinator.units.unit_name",
    "deploy.withdrawn.left_out": "deploy.registered_data.withdrawn.withdrawn_mask",
    "deploy.withdrawn.withdrawn": "deploy.registered_data.withdrawn.read_withdrawn",
    "encoders.cache.cached": "encoders.cache.load_or_compute",
    "encoders.cache.key_of": "encoders.cache.cache_key",
    "encoders.disjoint_cnn.write": "encoders.disjoint_cnn.write_encoder",
    "engine.lanes.Answer": "engine.lanes.ClientReply",
    "engine.lanes.Order": "engine.lanes.Instruction",
    "engine.lanes.cut": "engine.lanes.cut_lanes",
    "engine.lanes.merge": "engine.lanes.merge_lanes",
    "engine.ray_checks.check_answers": "engine.ray_checks.check_address",
    "engine.ray_checks.check_settings": "config.engine_settings.check_settings",
    "engine.ray_checks.places": "engine.ray_checks.worker_slots",
    "generation.checkpoint.State": "generation.checkpoint.TrainingState",
    "generation.checkpoint.digest": "generation.checkpoint.training_digest",
    "generation.checkpoint.restore": "generation.checkpoint.restore_training",
    "generation.checkpoint.save": "generation.checkpoint.save_training",
    "generation.devices.averaged": "generation.devices.average_styles",
    "generation.devices.described": "generation.devices.describe_devices",
    "generation.devices.restyled": "generation.devices.restyle",
    "generation.export.Asking": "generation.export.MembershipAttack",
    "generation.export.Exported": "generation.export.ExportResult",
    "generation.export.Judging": "generation.export.SampleAuditor",
    "generation.export.Parted": "generation.export.HoldoutSplit",
    "generation.export.exported": "generation.export.apply_export_gate",
    "generation.export.forced": "generation.export.with_forced_classes",
    "generation.export.parted": "generation.export.split_holdout",
    "generation.export.whole": "generation.export.without_holdout",
    "generation.labels.drop": "generation.batches.drop_conditions",
    "generation.plan.divided": "generation.sharing_plan.divide_among_clients",
    "generation.plan.targets": "generation.sharing_plan.sample_targets",
    "generation.plan.whole": "generation.sharing_plan.round_to_total",
    "generation.quality.Gated": "generation.quality.GateResult",
    "generation.quality.gate": "generation.quality.quality_gate",
    "generation.screening.Screened": "generation.screening.ScreeningResult",
    "generation.screening.screened": "generation.screening.screen_samples",
    "generation.settings.settings": "generation.settings.settings_from",
    "generation.sheet.sheet": "generation.preview.preview_png",
    "generation.style.describe": "generation.style.describe_style",
    "generation.transport.cut": "generation.transport.select_samples",
    "generation.transport.joined": "generation.transport.concatenate_samples",
    "generation.workshop.Recipe": "generation.generator_cache.GeneratorConfig",
    "generation.workshop.Workshop": "generation.generator_cache.GeneratorCache",
    "privacy.audit.checks.Near": "privacy.audit.class_tests.ClassDistances",
    "privacy.audit.checks.members_known": "privacy.audit.class_tests.membership_attack",
    "privacy.audit.checks.smote_made": "privacy.audit.class_tests.smote_test",
    "privacy.audit.copies.dealt": "privacy.audit.copies.random_deals",
    "privacy.audit.copies.exceeding": "privacy.audit.copies.exceedance_probability",
    "privacy.audit.crossed.halves": "privacy.audit.crossed.split_in_halves",
    "privacy.audit.distances.flat": "privacy.audit.distances.flatten",
    "privacy.audit.distances.nearest": "privacy.audit.distances.nearest_records",
    "privacy.audit.distances.rounding": "privacy.audit.distances.rounding_tolerance",
    "privacy.audit.distances.squared": "privacy.audit.distances.squared_distances",
    "privacy.audit.membership.Known": "privacy.audit.membership.AttackFigure",
    "privacy.audit.membership.attacked": "privacy.audit.membership.attack_figures",
    "privacy.audit.power.planted": "privacy.audit.power.plant_copies",
    "privacy.audit.smote.between": "privacy.audit.smote.lies_between",
    "privacy.audit.smote.matched": "privacy.audit.smote.match_records",
    "privacy.audit.smote.reconstructed": "privacy.audit.smote.reconstruct",
    "privacy.audit.smote.triples": "privacy.audit.smote.find_triples",
    "privacy.door.exit_door": "privacy.egress_filter.egress_filter",
    "privacy.ledger.entered": "privacy.ledger.add_round",
    "privacy.outbox.contents.counted": "generation.outbox.contents.class_hashes",
    "privacy.outbox.contents.mark": "generation.outbox.contents.mark_recalled",
    "privacy.outbox.contents.marked": "generation.outbox.contents.recalled_batches",
    "privacy.outbox.contents.named": "generation.outbox.contents.class_title",
    "privacy.outbox.contents.packed": "generation.outbox.contents.pack_batch",
    "privacy.outbox.contents.unpacked": "generation.outbox.contents.unpack_batch",
    "privacy.secrets.Asked": "privacy.secrets.MessageInfo",
    "privacy.secure_sum.masked": "privacy.secure_sum.mask_values",
    "privacy.updates.cohort_of": "privacy.updates.cohort_size",
    "privacy.updates.protected": "privacy.updates.clip_and_noise",
    "privacy.updates.share": "privacy.updates.noise_share",
    "report.kept.kept_panel": "serverapp.panels.kept_panel",
    "report.plots.partition_figure": "rundir.partition_picture.partition_figure",
    "run.aggregator.frozen": "serverapp.aggregator.gc_frozen",
    "run.checkpoint.FolderKeeper": "serverapp.checkpoint.FolderCheckpointer",
    "run.client_scores.answer": "clientapp.scores.answer_query",
    "run.client_scores.keep_scores": "serverapp.finish.keep_scores",
    "run.further.Further": "serverapp.auxiliary_model.AuxiliaryModel",
    "run.headline.effort": "serverapp.finish.cost",
    "run.launch.go_on": "serverapp.launch.run_in_server_app",
    "run.memory.memory_of": "serverapp.method_state.method_records",
    "run.memory.take_memory": "serverapp.method_state.take_method_records",
    "run.opened.Done": "clientapp.runtime.PrefetchedReply",
    "run.opened.Opened": "clientapp.runtime.PendingMessage",
    "run.priors.answer": "clientapp.class_prior.answer_query",
    "run.priors.clipped_counts": "clientapp.class_prior.clipped_counts",
    "run.priors.noisy_share": "clientapp.class_prior.noisy_share",
    "run.priors.weigh": "serverapp.class_prior.prior_from_counts",
    "run.result.write_result": "serverapp.finish.write_result",
    "run.roster.Roster": "serverapp.client_sampler.ClientSampler",
    "run.steps.name_of": "serverapp.steps.step_name",
    "run.view.Keeper": "serverapp.loop.Checkpointer",
    "run.view.RunView": "serverapp.context.RunContext",
    "selection.queries.base.Asked": "selection.queries.base.QueryInput",
    "selection.queries.base.Seen": "selection.queries.base.ModelOutputs",
    "strategies.fedssg.rarest": "strategies.fedssg.rarest_classes",
    "study.execute.Hands": "study.execute.Workers",
    "study.folders.told_apart": "study.folders.disambiguate",
    "training.samplers.mixed.visits": "training.samplers.mixed.mixed_epoch",
    "training.stacked.why_no_stack": "training.stacked.why_model_not_stackable",
    "training.stacked.why_not": "training.stacked.why_spec_not_stackable",
    "training.terms.base.LocalTerm": "training.objectives.base.LocalObjective",
    "training.terms.taught.PartOfCrossEntropy": "training.objectives.taught.ScaledCrossEntropy",
    "training.terms.taught.Taught": "training.objectives.taught.TeacherDistillation",
}
"""Old name of a class or function, after its module in 0.1 -> its place and name now, all within fedimb."""


_WITH_OLD_NAMES = frozenset(old.rpartition(".")[0] for old in RENAMED)


def _new_object(module: str, name: str, level: int = 2) -> Any:
    """The object that a module of 0.1 had under an old name, with a warning that gives the new one.

    Raises:
        AttributeError: the module had no such name, or none that was renamed.
    """
    old = f"{module.partition('.')[2]}.{name}"
    if (new := RENAMED.get(old)) is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    text = f"fedimb.{old} is fedimb.{new} now; the old name will be removed in the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=level)
    place, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(f"fedimb.{place}"), attribute)


class _Moved(ModuleType):
    """An old path: attributes are looked up in the module's new location."""

    def __getattr__(self, name: str) -> Any:
        if f"{self.__name__.partition('.')[2]}.{name}" in RENAMED:
            return _new_object(self.__name__, name, 3)
        return getattr(importlib.import_module(f"fedimb.{MOVED[self.__name__.partition('.')[2]]}"), name)


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


class _WithOldNames(SourceFileLoader):
    """Loads a module that did not move and answers its old names too.

    The module's file does not mention them, so that a type checker refuses them.
    """

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__getattr__ = partial(_new_object, module.__name__)  # type: ignore[method-assign]


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


class RenamedFinder(MetaPathFinder):
    """Finds modules that have old names, before all other finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual spec of a module within fedimb that has old names, with a loader that knows them; else None."""
        if not fullname.startswith("fedimb.") or fullname.partition(".")[2] not in _WITH_OLD_NAMES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _WithOldNames(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Install the finders, once."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
        sys.meta_path.insert(0, RenamedFinder())
