"""FedSSG at a site: report row counts, make or audit samples when asked, and train on real and synthetic rows."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from fedimb.annotation.oracles import SITE_DIR
from fedimb.clientapp.context import ClientContext, Site
from fedimb.clients.base import Client
from fedimb.config.load import config_sha
from fedimb.contracts.fedssg import (
    ABOUT,
    COVERAGE_COUNTS,
    FIGURES,
    GENERATOR,
    SAMPLES,
    STYLE,
    TAKE,
    TAKEN,
    TAUGHT,
    VERDICTS,
    WANTED,
    FedSSGSettings,
)
from fedimb.errors import ConfigError
from fedimb.generation.base import Generator
from fedimb.generation.coverage import coverage, noised
from fedimb.generation.devices import describe_devices, device_ids, n_devices
from fedimb.generation.examples import REFUSE, Examples, small_classes
from fedimb.generation.export import (
    ExportResult,
    HoldoutSplit,
    SampleAuditor,
    apply_export_gate,
    as_examples,
    split_holdout,
    with_forced_classes,
    without_holdout,
)
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.local import local_rows
from fedimb.generation.outbox.box import Outbox
from fedimb.generation.settings import settings_from
from fedimb.generation.sharing_plan import cells
from fedimb.generation.training import Training, train_generator
from fedimb.generation.transport import from_record, to_record
from fedimb.privacy.audit.types import Audit, GateSettings
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream, seed_int
from fedimb.training.samplers.mixed import Mixed
from fedimb.training.spec import TrainSpec


@register("client", "fedssg")
class FedSSGClient(Client):
    """FedSSG at a site.

    Args:
        settings: a `FedSSGSettings`; or give its fields by name.
    """

    def __init__(self, settings: FedSSGSettings | None = None, **fields: object) -> None:
        self.settings = FedSSGSettings.of(settings, fields)
        self.training = settings_from("training", Training, self.settings.training)
        self.audit = settings_from("audit", GateSettings, self.settings.audit)

    def check(self, site: Site) -> None:
        """Refuse several labels per row, and a generator that does not suit the rows.

        Raises:
            ConfigError: why, and what to set instead.
        """
        if site.task != "multiclass":
            raise ConfigError("strategy=fedssg makes rows of one class each; these rows have several labels")
        if self.settings.made == "generator":
            self._generator_config(site.store.input_shape, site.class_names, n_devices(site.store), 0).build()

    def train_spec(self, spec: TrainSpec, context: ClientContext) -> TrainSpec:
        """Train on real and synthetic rows, for as many steps as without synthetic rows."""
        if "synthetic" not in context.state:
            return spec
        extra = from_record(context.state.array_records["synthetic"])
        n_real = len(context.data.rows(spec.view))
        return spec.change(extra=(extra.x, extra.y), sampler=Mixed(spec.sampler, n_real, self.settings.visits))

    def query(self, name: str, content: RecordDict, context: ClientContext) -> RecordDict:
        """Answer one of the five queries of the contract."""
        view = context.data.known_view
        x, y = (part.cpu() for part in context.data.tensors(view))
        d = device_ids(context.data.store, context.data.rows(view))
        match name:
            case "fedssg_coverage":
                return self._coverage(x, y, d, context)
            case "fedssg_teach":
                return self._teach(content, self._holdout_split(x, y, d, context), context)
            case "fedssg_make":
                return self._make(content, self._holdout_split(x, y, d, context), context)
            case "fedssg_veto":
                return self._veto(content, self._holdout_split(x, y, d, context), context)
            case _:
                assert name == TAKE, name
                return self._take(content, x, y, context)

    def _coverage(self, x: Tensor, y: Tensor, d: Tensor, context: ClientContext) -> RecordDict:
        store = context.data.store
        counts = coverage(y.numpy(), d.numpy(), store.n_classes, n_devices(store))
        if self.settings.epsilon is not None:
            counts = noised(counts, self.settings.epsilon, context.rng(Stream.PRIOR_NOISE))
        reply = RecordDict({COVERAGE_COUNTS: array_record({"counts": counts.astype(np.int32)})})
        if self.settings.style and x.ndim == 4:
            reply[STYLE] = array_record(describe_devices(x, d, n_devices(store)))
        return reply

    def _holdout_split(self, x: Tensor, y: Tensor, d: Tensor, context: ClientContext) -> HoldoutSplit:
        """Split the rows in the same way for every message of a run."""
        patients = context.data.store.patients
        units = None if patients is None else np.asarray(patients)[context.data.rows(context.data.known_view)]
        return split_holdout(
            x, y, d, units, self.settings.holdout, seed_int(context.config.seed, Stream.METHOD, 4, context.client)
        )

    def _generator_config(
        self, shape: tuple[int, ...], names: tuple[str, ...], devices: int, seed: int
    ) -> GeneratorConfig:
        return GeneratorConfig(self.settings.generator, self.training, len(names), devices, shape, tuple(names), seed)

    def _own_config(self, context: ClientContext) -> GeneratorConfig:
        store, seed = context.data.store, seed_int(context.config.seed, Stream.METHOD, 5, context.client)
        return self._generator_config(store.input_shape, store.class_names, n_devices(store), seed)

    def _teach(self, content: RecordDict, rows: HoldoutSplit, context: ClientContext) -> RecordDict:
        made, store = self._received(content, context), context.data.store
        about, examples = content.config_records[ABOUT], as_examples(rows.learned)
        if len(examples.y):
            training = replace(self.training, steps=int(about["steps"]), warmup=0)  # type: ignore[arg-type]
            seed = seed_int(context.config.seed, Stream.METHOD, 100 + int(about["round"]), context.client)  # type: ignore[arg-type]
            train_generator(made, examples, training, seed)
        classes = np.bincount(rows.learned.y, minlength=store.n_classes)
        domains = np.bincount(examples.d.numpy(), minlength=n_devices(store))
        return RecordDict(
            {
                GENERATOR: array_record({name: value.cpu().numpy() for name, value in made.state_dict().items()}),
                TAUGHT: array_record({"classes": classes.astype(np.int64), "domains": domains.astype(np.int64)}),
            }
        )

    def _received(self, content: RecordDict, context: ClientContext) -> Generator:
        made = self._own_config(context).build()
        state = arrays_of(content, GENERATOR)
        made.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
        return made

    def _make(self, content: RecordDict, rows: HoldoutSplit, context: ClientContext) -> RecordDict:
        asked = arrays_of(content, WANTED)
        wanted = asked["wanted"].copy()
        if self.settings.cross:
            rows = without_holdout(rows)
        held = np.bincount(rows.learned.y, minlength=len(wanted))
        small = small_classes(held, REFUSE)
        wanted[[c for c in range(len(wanted)) if held[c] == 0 or (c in small and not self.settings.force)]] = 0
        y, d = cells(wanted)
        examples, generator = as_examples(rows.learned), None
        samples = Examples(examples.x[:0], y, d)
        if len(y):
            cache = GeneratorCache(self._own_config(context), examples)
            generator = cache.generator
            samples = Examples(cache.samples(y, d, seed_int(context.config.seed, Stream.METHOD, 2)), y, d)
        judged = SampleAuditor(
            rows, generator, asked["holders"], self._own_config(context) if self.settings.cross else None
        )
        outcome, found = self._exported(samples, judged, small, context)
        reply = _verdicts(outcome, found, context)
        if len(outcome.samples.y) and not outcome.waiting:
            reply[SAMPLES] = to_record(outcome.samples)
        return reply

    def _veto(self, content: RecordDict, rows: HoldoutSplit, context: ClientContext) -> RecordDict:
        samples = from_record(content.array_records[SAMPLES])
        held = np.bincount(rows.learned.y, minlength=context.data.store.n_classes)
        own = torch.from_numpy(held > 0)[samples.y]
        samples = Examples(samples.x[own], samples.y[own], samples.d[own])
        small = small_classes(held, REFUSE) if self.settings.force else []
        judged = SampleAuditor(rows, self._received(content, context), arrays_of(content, WANTED)["holders"])
        return _verdicts(*self._exported(samples, judged, small, context), context)

    def _exported(
        self, samples: Examples, judged: SampleAuditor, small: list[int], context: ClientContext
    ) -> tuple[ExportResult, Audit | None]:
        run, names = f"s{context.config.seed}-{config_sha(context.config)[:8]}", context.data.store.class_names
        own = os.environ.get(SITE_DIR)
        outbox = (Path(own) if own else Path(self.settings.folder) / f"client-{context.client:03d}") / "outbox"
        outcome, found = apply_export_gate(
            samples,
            judged,
            with_forced_classes(self.audit, small if self.settings.force else []),
            self.settings.gate,
            outbox if self.settings.release == "manual" else None,
            {"class_names": list(names), "run": run},
            len(names),
            seed_int(context.config.seed, Stream.METHOD, 7, context.client),
        )
        if outcome.batch is not None and not outcome.waiting and len(outcome.samples.y):
            Outbox(outbox).used_by(outcome.batch, run)
        return outcome, found

    def _take(self, content: RecordDict, x: Tensor, y: Tensor, context: ClientContext) -> RecordDict:
        if SAMPLES in content:
            extra = from_record(content.array_records[SAMPLES])
        else:
            wanted = torch.from_numpy(arrays_of(content, WANTED)["wanted"])
            made_x, made_y = local_rows(self.settings.made, x, y, wanted, context.generator())
            extra = Examples(made_x, made_y, torch.zeros_like(made_y))
        if len(extra.y):
            arrays = {"x": extra.x.numpy(), "y": extra.y.numpy(), "d": extra.d.numpy()}
            context.state["synthetic"] = to_record(extra) if SAMPLES in content else array_record(arrays)
        elif "synthetic" in context.state:  # left from an earlier labelling cycle
            del context.state["synthetic"]
        taken = np.bincount(extra.y.numpy(), minlength=context.data.store.n_classes).astype(np.int32)
        return RecordDict({TAKEN: array_record({"taken": taken})})


def _verdicts(outcome: ExportResult, found: Audit | None, context: ClientContext) -> RecordDict:
    """The gate's verdict per class, and its figures."""
    marks = {"verdicts": outcome.verdicts, "waiting": np.array([outcome.waiting], np.int32)}
    figures = found.metrics(context.data.store.class_names) if found is not None else {}
    defined = {name: float(value) for name, value in figures.items() if np.isfinite(value)}
    return RecordDict({VERDICTS: array_record(marks), FIGURES: MetricRecord(defined)})  # type: ignore[arg-type]
