"""FedSSG at a site: report row counts, make or audit samples when asked, and train on real and synthetic rows."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
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
    LEAKAGE,
    SAMPLES,
    STYLE,
    TAKE,
    TAKEN,
    TAUGHT,
    VERDICTS,
    WANTED,
    FedSSGSettings,
)
from fedimb.errors import ConfigError, FedimbError
from fedimb.generation.base import Generator
from fedimb.generation.categories import nearest_categories
from fedimb.generation.coverage import coverage, noised
from fedimb.generation.devices import describe_devices, device_ids, n_devices
from fedimb.generation.examples import REFUSE, Examples, check_beside, small_classes
from fedimb.generation.export import (
    ExportResult,
    HoldoutSplit,
    MembershipAttack,
    SampleAuditor,
    apply_export_gate,
    as_examples,
    encoder_features,
    split_holdout,
    with_forced_classes,
    without_holdout,
)
from fedimb.generation.federated import (
    MEASURED,
    RowsByGroup,
    at_least,
    draw_by_class,
    load_into,
    sample_seed,
    state_of,
    teaching_classes,
    weight_leakage,
)
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.local import local_rows
from fedimb.generation.outbox.box import Outbox
from fedimb.generation.settings import settings_from
from fedimb.generation.sharing_plan import cells
from fedimb.generation.training import Training, train_generator
from fedimb.generation.transport import from_record, to_record
from fedimb.privacy.audit.types import Audit, Batch, Features, GateSettings
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream, seed_int
from fedimb.training.samplers.mixed import Mixed
from fedimb.training.spec import TrainSpec

_TAUGHT = "taught"
"""Key of the client's state: what it has taught a generator of all clients."""


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
        """Refuse several labels per row, and a generator of this client's that does not suit the rows.

        Raises:
            ConfigError: why, and what to set instead.
        """
        if site.task != "multiclass":
            raise ConfigError("strategy=fedssg makes rows of one class each; these rows have several labels")
        if self.settings.made == "generator" and self.settings.source != "server_public":
            self._generator_config(site.store.input_shape, site.class_names, n_devices(site.store), 0).build()
        if self.settings.gate != "off":
            encoder_features(self.settings.encoder, site.store)

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
            counts = noised(
                counts, self.settings.epsilon, partial(context.secrets.laplace, context, Stream.PRIOR_NOISE)
            )
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

    def _features(self, context: ClientContext) -> Features | None:
        return encoder_features(self.settings.encoder, context.data.store) if self.settings.gate != "off" else None

    def _own_config(self, context: ClientContext) -> GeneratorConfig:
        store, seed = context.data.store, seed_int(context.config.seed, Stream.METHOD, 5, context.client)
        return self._generator_config(store.input_shape, store.class_names, n_devices(store), seed)

    def _least(self) -> int:
        """Fewest rows (patients) of a class that may teach a generator of all clients."""
        return self.audit.min_count if self.settings.force else max(self.audit.min_count, REFUSE)

    def _teach(self, content: RecordDict, rows: HoldoutSplit, context: ClientContext) -> RecordDict:
        """Train the generator on the classes that may, and send it with their rows; see `_Memory`.

        A class that an attack on the trained weights recognises is left out, and they are trained again without it,
        before anything leaves.
        """
        made, received, about = self._received(content, context), arrays_of(content, GENERATOR), _about(content)
        self._check_order(about)
        memory = _Memory.of(context, about["generator"])
        classes = teaching_classes(rows.learned, memory.n_classes, self._least()) & ~memory.given_away
        measured = np.full((memory.n_classes, len(MEASURED)), np.nan)
        while classes.any():
            learned, kept = (batch.cut(classes[batch.y]) for batch in (rows.learned, rows.kept))
            load_into(made, received)
            training = replace(self.training, steps=self.settings.local_steps, warmup=0)
            seed = seed_int(context.config.seed, Stream.METHOD, 100 + about["round"], context.client)
            train_generator(made, as_examples(learned), training, seed)
            if self.settings.gate == "off" or not made.trainable:
                break
            alpha = self.audit.alpha / (2 * self.settings.rounds)
            attack = MembershipAttack(made, seed)
            found = weight_leakage(attack, learned, kept, memory.n_classes, self.audit, alpha, seed)
            measured = np.where(np.isnan(found), measured, found)
            given_away = found[:, MEASURED.index("given_away")] == 1
            if self.settings.gate == "report" or not given_away.any():
                break
            memory.given_away |= given_away
            classes = classes & ~given_away
        memory.taught |= classes
        memory.keep(context)
        return self._taught(made, received, rows.learned.cut(classes[rows.learned.y]), measured)

    def _check_order(self, about: Mapping[str, int]) -> None:
        """Refuse numbers that are not the configuration's: more rounds would dull the attack on the weights.

        Raises:
            FedimbError: which number it is.
        """
        settled = {"rounds": self.settings.rounds, "steps": self.settings.local_steps}
        for name, own in settled.items():
            if about[name] != own:
                raise FedimbError(f"the message says {name}={about[name]} of the generator; this run has {own}")
        if not 0 <= about["round"] < self.settings.rounds:
            raise FedimbError(
                f"the message is for round {about['round']} of the generator; this run has {self.settings.rounds}"
            )

    def _taught(self, made: Generator, received: Arrays, learned: Batch, measured: np.ndarray) -> RecordDict:
        """The reply to `_teach`; what these rows did not train leaves as it was received."""
        classes = np.bincount(learned.y, minlength=made.n_classes).astype(np.int64)
        domains = np.bincount(as_examples(learned).d.numpy(), minlength=made.n_domains).astype(np.int64)
        state = received
        if len(learned):
            own = RowsByGroup(received, made.class_rows(), made.domain_rows())
            state = own.only(state_of(made), classes > 0, domains[: made.n_domains] > 0)
        return RecordDict(
            {
                GENERATOR: array_record(state),
                TAUGHT: array_record({"classes": classes, "domains": domains}),
                LEAKAGE: array_record({"measured": measured.astype(np.float32)}),
            }
        )

    def _received(self, content: RecordDict, context: ClientContext) -> Generator:
        return load_into(self._own_config(context).build(), arrays_of(content, GENERATOR))

    def _make(self, content: RecordDict, rows: HoldoutSplit, context: ClientContext) -> RecordDict:
        asked = arrays_of(content, WANTED)
        wanted = asked["wanted"].copy()
        if self.settings.cross:
            rows = without_holdout(rows)
        held = np.bincount(rows.learned.y, minlength=len(wanted))
        # Ready-made rows learn nothing from these: how few they are does not matter, and the gate judges them alike.
        small = small_classes(held, REFUSE) if self._own_config(context).trainable else []
        wanted[[c for c in range(len(wanted)) if held[c] == 0 or (c in small and not self.settings.force)]] = 0
        y, d = cells(wanted)
        examples, generator = as_examples(rows.learned), None
        samples = Examples(examples.x[:0], y, d)
        if len(y):
            cache = GeneratorCache(self._own_config(context), examples)
            generator = cache.generator
            samples = Examples(cache.samples(y, d, seed_int(context.config.seed, Stream.METHOD, 2)), y, d)
        halves = self._own_config(context) if self.settings.cross else None
        judged = SampleAuditor(rows, generator, asked["holders"], halves, self._features(context))
        outcome, found = self._exported(samples, judged, small, context)
        reply = _verdicts(outcome, found, context)
        if len(outcome.samples.y) and not outcome.waiting:
            reply[SAMPLES] = to_record(outcome.samples)
        return reply

    def _veto(self, content: RecordDict, rows: HoldoutSplit, context: ClientContext) -> RecordDict:
        """Redraw the samples of the classes taught here and vote on each; nobody has seen them before.

        A class that was taught here and that the generator in the message lacks cannot be judged, and is refused.
        """
        generator, asked, memory = self._received(content, context), arrays_of(content, WANTED), _Memory.of(context)
        known = generator.class_seen[: memory.n_classes].cpu().numpy() > 0
        sizes = at_least(asked["sizes"] * (memory.taught & known)[:, None])
        samples = draw_by_class(generator.eval(), sizes, partial(sample_seed, context.config.seed), lambda done: None)
        own = HoldoutSplit(rows.learned.cut(memory.taught[rows.learned.y]), rows.kept)
        held = np.bincount(own.learned.y, minlength=memory.n_classes)
        small = small_classes(held, REFUSE) if self.settings.force else []
        judged = SampleAuditor(own, generator, asked["holders"], features=self._features(context))
        reply = _verdicts(*self._exported(samples, judged, small, context), context)
        if (missing := memory.taught & ~known).any():
            marks = arrays_of(reply, VERDICTS)
            marks["verdicts"][missing] = 0
            reply[VERDICTS] = array_record(marks)
        return reply

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
            if context.data.store.columns is None:  # a table's columns each have a unit of their own
                check_beside("strategy.fedssg: the samples sent to this client", extra.x, x.cpu())
        else:
            wanted = torch.from_numpy(arrays_of(content, WANTED)["wanted"])
            made_x, made_y = local_rows(self.settings.made, x, y, wanted, context.generator())
            extra = Examples(made_x, made_y, torch.zeros_like(made_y))
        if (columns := context.data.store.columns) is not None:
            extra = replace(extra, x=nearest_categories(extra.x, columns.one_hot))
        if len(extra.y):
            arrays = {"x": extra.x.numpy(), "y": extra.y.numpy(), "d": extra.d.numpy()}
            context.state["synthetic"] = to_record(extra) if SAMPLES in content else array_record(arrays)
        elif "synthetic" in context.state:  # left from an earlier labelling cycle
            del context.state["synthetic"]
        taken = np.bincount(extra.y.numpy(), minlength=context.data.store.n_classes).astype(np.int32)
        return RecordDict({TAKEN: array_record({"taken": taken})})


@dataclass
class _Memory:
    """What a client remembers of a generator averaged over clients.

    Attributes:
        generator: its number within the run.
        taught: [C] bool: classes whose rows have taught it, so that this client votes on them.
        given_away: [C] bool: classes that an attack recognised in weights trained here; they do not teach it again.
    """

    generator: int
    taught: np.ndarray
    given_away: np.ndarray

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.taught)

    @staticmethod
    def of(context: ClientContext, generator: int | None = None) -> "_Memory":
        """As kept; empty for another generator than the last, or if this client has not been asked before."""
        if _TAUGHT in context.state:
            kept = arrays_of(context.state, _TAUGHT)
            if generator in (None, int(kept["generator"][0])):
                return _Memory(int(kept["generator"][0]), kept["taught"] > 0, kept["given_away"] > 0)
        none = np.zeros(context.data.store.n_classes, bool)
        return _Memory(generator or 0, none, none.copy())

    def keep(self, context: ClientContext) -> None:
        """Put it into the client's state."""
        kept = {"generator": np.array([self.generator]), "taught": self.taught, "given_away": self.given_away}
        context.state[_TAUGHT] = array_record({name: value.astype(np.int32) for name, value in kept.items()})


def _about(content: RecordDict) -> dict[str, int]:
    """The whole numbers of a message."""
    return {name: int(value) for name, value in content.config_records[ABOUT].items()}  # type: ignore[arg-type]


def _verdicts(outcome: ExportResult, found: Audit | None, context: ClientContext) -> RecordDict:
    """The gate's verdict per class, and its figures."""
    marks = {"verdicts": outcome.verdicts, "waiting": np.array([outcome.waiting], np.int32)}
    figures = found.metrics(context.data.store.class_names) if found is not None else {}
    defined = {name: float(value) for name, value in figures.items() if np.isfinite(value)}
    return RecordDict({VERDICTS: array_record(marks), FIGURES: MetricRecord(defined)})  # type: ignore[arg-type]
