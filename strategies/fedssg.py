"""FedSSG: synthetic samples of rare classes and missing devices, made once and shared across clients.

"FedSSG: Federated Learning with Synthetic Sample Generation under class and domain imbalance" (arXiv 2604.26324, ICPR
2026). Known about it: synthetic samples from a class-conditional diffusion model are distributed across clients so that
under-represented pathologies and imaging devices are covered; a global pretraining initialisation; little work at the
clients. **Everything else here is a reconstruction**: who trains the generator on what, the plan, the gates and all
numbers. So results here neither confirm nor refute the paper.

    1. w_0       the classifier pretrained on the server's own rows D_0 (``data.public``), if it has some
    2. coverage  clients report rows n_kyd per class y and device d, with Laplace noise if asked
    3. plan      samples m_kyd per client (`fedimb.generation.sharing_plan`)
    4. samples   by ``source``: a generator trained at the server on D_0; one averaged over clients
                 (`fedimb.generation.averaging`); or one at each client, of which only audited samples leave
    5. gates     samples the pretrained classifier doubts or that lie next to a real row are dropped; what was learned
                 from clients' rows passes an export gate there (`fedimb.privacy.audit`), which may refuse classes
    6. training  on real rows and, of the synthetic ones, a share ``visits`` per epoch; as many steps as without

``made`` other than ``generator`` are controls: as many rows as planned, made by each client from its own rows and
never shared; or, with ``public``, rows of D_0 themselves. The protocol of the sources, the gates at clients, the
caching and a prior that counts real + visits x synthetic rows are not from the paper.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fedssg import COVERAGE, COVERAGE_COUNTS, SAMPLES, STYLE, TAKE, TAKEN, WANTED, FedSSGSettings
from fedimb.errors import ConfigError, DataError, RunFailed
from fedimb.generation.devices import average_styles
from fedimb.generation.examples import REFUSE, Examples
from fedimb.generation.label_filter import check_recognisable
from fedimb.generation.preview import preview_png
from fedimb.generation.screening import screen_samples
from fedimb.generation.settings import settings_from
from fedimb.generation.sharing_plan import Plan, assign, cells, plan_report, pool_sizes, sample_targets
from fedimb.generation.style import Style
from fedimb.generation.training import Training, floor_check
from fedimb.generation.transport import select_samples, to_record
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream, numpy_rng
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Reply, ServerWork, Step
from fedimb.strategies.base import Method, Program
from fedimb.strategies.fedssg_federated import FederatedGenerator
from fedimb.strategies.fedssg_pools import Pools, config_of

Counts = np.ndarray


@register(
    "strategy",
    "fedssg",
    reveals_counts=True,
    reads_labels=True,
    other_models=True,
    read_with={
        "rounds": ("source", ("fed_diffusion",)),
        "local_steps": ("source", ("fed_diffusion",)),
        "cross": ("source", ("client_generators",)),
    },
)
class FedSSG(Method):
    """FedSSG: synthetic samples of rare classes and missing devices, made once and shared across clients.

    Args:
        inner: the aggregator or method trained on real and synthetic rows.
        settings: a `FedSSGSettings`; or give its fields by name: ``FedSSG(FedAvg(), visits=1.0)``.

    Raises:
        ConfigError: a value out of range or an unknown key.
    """

    def __init__(self, inner: Strategy, settings: FedSSGSettings | None = None, **fields: object) -> None:
        super().__init__(inner)
        self.settings = FedSSGSettings.of(settings, fields)
        self.own = self.settings.pool == "own"
        self.plan = settings_from("plan", Plan, self.settings.plan)
        self.training = settings_from("training", Training, self.settings.training)
        self.figures: dict[str, float] = {}  # what export gates measured

    def check_server(self, server: Server) -> None:
        """Refuse a server without the rows it needs, or with too few to train on, and a generator that does not fit."""
        if self.settings.made == "public":
            server.public()
        if self.settings.made == "generator":
            self._check_generator(server)
        if self._is_federated() and server.clips():
            raise ConfigError(
                "strategy.fedssg.source=fed_diffusion sends a generator's weights, which privacy.clip and noise "
                "do not cover: use source=server_public, or privacy.clip=null privacy.noise=0"
            )

    def _check_generator(self, server: Server) -> None:
        """Refuse a generator that cannot do what ``source`` asks of it.

        Raises:
            ConfigError: it does not suit the rows, does not find its own, has nothing to train or to filter by, or
                serves rows of a class that the filter has never seen.
            DataError: the server has too few rows of a class to train it.
        """
        config, source = config_of(self.settings.generator, self.training, server, 0), self.settings.source
        if not config.trainable and (reason := self._cannot_serve(server)):
            raise ConfigError(
                f"strategy.fedssg.{reason}, and generator '{config.name}' serves ready-made rows: use "
                "strategy.fedssg.source=server_public, or another generator"
            )
        if config.confidence and self._is_federated():
            raise ConfigError(
                "strategy.fedssg.generator.confidence needs a classifier of the rows, and the sites of "
                "source=fed_diffusion share none: leave it out, or use another source"
            )
        if source != "server_public":
            return  # built by each client
        try:
            made = config.build()
            if config.confidence and made.rows is not None and server.has_public():
                check_recognisable(server.public().y, made.rows.y, server.class_names())
        except DataError as error:
            raise ConfigError(f"strategy.fedssg.generator: {error}") from error
        if config.trainable:
            counts = np.bincount(server.public().y, minlength=len(server.class_names()))
            floor_check(counts, server.class_names(), force=self.settings.force)
        elif config.confidence and not server.has_public():
            raise ConfigError(
                "strategy.fedssg.generator.confidence needs real rows for its classifier, and the server has none: "
                "set data.public, or leave it out"
            )

    def _cannot_serve(self, server: Server) -> str | None:
        """Why the source cannot do with ready-made rows; None if it can."""
        if self.settings.source == "server_public":
            return None
        if self._is_federated():
            return "source=fed_diffusion trains one generator at all clients"
        if self.settings.cross:
            return "cross=true trains two further generators"
        return None if server.deployed() else "source=client_generators reads the same file at all simulated clients"

    def program(self, run: RunContext) -> Program:
        """Pretrain, ask clients for their counts, make what they lack, distribute it, train."""
        server = run.server
        if server is None:
            raise ConfigError(
                "strategy=fedssg makes samples at the server: run it with fedimb, not in a plain ServerApp"
            )
        if self.settings.pretrain and server.has_public():
            kept = yield ServerWork("pretrain", lambda: self._pretrained(server))
            run.initial = arrays_of(kept, "weights")
        replies = yield Query(COVERAGE)
        clients = [reply.client for reply in replies]
        counts = np.stack([arrays_of(reply.content, COVERAGE_COUNTS)["counts"] for reply in replies]).astype(np.int64)
        styles = average_styles([arrays_of(reply.content, STYLE) for reply in replies if STYLE in reply.content])
        pools = Pools(run, server, self.settings.generator, self.training, self.settings.force)
        possible = self._possible(pools, counts, styles)
        wanted = sample_targets(counts, self.plan, possible)
        report: dict[str, Any] = {name: getattr(self.settings, name) for name in ("source", "made", "pool")}
        taught = None
        if self._is_federated() and wanted.any():
            self._check_reach(counts)
            taught = yield from pools.teach(counts, self.settings.rounds, self.settings.local_steps, report)
            wanted = sample_targets(counts, self.plan, possible & taught.cells())
            if not wanted.any():
                raise RunFailed(
                    "strategy=fedssg: no client taught the generator a class that another lacks: too few rows at each "
                    f"of {', '.join(report['untaught']) or 'those that have it'}; use more rows or another source"
                )
        if self.settings.made in ("generator", "public"):
            given = yield from self._samples(run, pools, taught, clients, counts, wanted, styles, report)
            parts = [(SAMPLES, to_record(samples)) for samples in given]
        else:
            parts = [(WANTED, array_record({"wanted": rows.sum(axis=1)})) for rows in wanted]
        each = {client: RecordDict({key: record}) for client, (key, record) in zip(clients, parts, strict=True)}
        replies = yield Query(TAKE, each=each)
        taken = np.stack([arrays_of(reply.content, TAKEN)["taken"] for reply in replies]).astype(np.int64)
        self._note(run, server, counts, wanted, taken, report)
        yield from self.inner_program(run)

    def _is_federated(self) -> bool:
        return self.settings.made == "generator" and self.settings.source == "fed_diffusion"

    def _check_reach(self, counts: Counts) -> None:
        """Refuse a generator of all clients that nobody can teach, before any training."""
        most = int(counts.sum(axis=2).max(initial=0))
        if most < REFUSE and not self.settings.force and self.settings.epsilon is None:
            raise DataError(
                f"strategy.fedssg.source=fed_diffusion: no client has {REFUSE} rows of any class (at most {most}); of "
                "fewer rows a generator keeps copies, so none teaches it: use another source"
            )

    def _possible(self, pools: Pools, counts: Counts, styles: Mapping[int, Style]) -> np.ndarray:
        """[C, D] bool: which samples can be made.

        A class never seen on a device does not come out as that class (measured, see docs/generators.md), but it can
        be made without a device and take the colours of a device that clients described.
        """
        if self.settings.made != "generator":
            return np.ones(counts.shape[1:], bool)
        if self.settings.source == "server_public":
            seen = pools.known_cells.copy()
            seen[:, sorted(styles)] |= seen.any(axis=1, keepdims=True)
            return seen
        return np.asarray(counts.sum(axis=0) > 0)

    def _pretrained(self, server: Server) -> RecordDict:
        rows, epochs = server.public(), self.settings.pretrain
        return RecordDict({"weights": array_record(server.train(server.model(), rows.x, rows.y, epochs))})

    def _samples(
        self,
        run: RunContext,
        pools: Pools,
        taught: FederatedGenerator | None,
        clients: list[int],
        counts: Counts,
        wanted: Counts,
        styles: Mapping[int, Style],
        report: dict[str, Any],
    ) -> Generator[Step, Any, list[Examples]]:
        """The samples for each client: from the pool of the configured source, screened, or from D_0."""
        rng, server = numpy_rng(run.seed, Stream.METHOD, 3), pools.server
        if self.settings.made == "public":
            rows = server.public()
            return _distribute(Examples(rows.x, rows.y, rows.d), wanted, rng, self.own)
        if not wanted.any():
            return _distribute(
                Examples(torch.zeros((0, *server.input_shape())), *cells(wanted[0])), wanted, rng, self.own
            )
        sizes = np.ceil(self.settings.surplus * pool_sizes(wanted, self.own)).astype(np.int64)
        if self.settings.source == "client_generators":
            samples = yield from pools.of_clients(clients, counts, sizes, report)
        elif taught is not None:
            samples = yield from pools.averaged(taught, sizes, report)
        else:
            samples = yield from pools.public(sizes, styles)
        report["figures"] = pools.figures
        self.figures = pools.figures
        if self.settings.screen and server.has_public() and run.initial:
            screen = screen_samples(server, run.initial, samples, rarest_classes(counts))
            samples, report["screen"] = screen.kept, screen.report
        if self.settings.source == "server_public" and samples.x.ndim > 2:
            run.artifact("fedssg_samples.png", preview_png(samples, run.class_names))
        return _distribute(samples, wanted, rng, self.own)

    def _note(
        self, run: RunContext, server: Server, counts: Counts, wanted: Counts, taken: Counts, report: dict[str, Any]
    ) -> None:
        """Recompute the prior, and report what was planned, made, dropped and used."""
        if run.method_sets_prior and run.prior_view == "train":
            real = counts.sum(axis=2) if self.settings.epsilon is None else None
            extra = self.settings.visits * taken
            run.counts = run.prior_from_counts(real + extra) if real is not None else run.counts + extra.sum(axis=0)
        self.memory["taken"] = taken.sum(axis=0)
        devices = server.domains() or ("all",)
        report |= plan_report(counts, wanted, self.plan, run.class_names, devices) | {"taken": taken.tolist()}
        run.artifact("fedssg.json", (json.dumps(report, indent=1) + "\n").encode())

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """Number of synthetic rows at the clients, in total and by class."""
        if "taken" not in self.memory:
            return {}
        taken = np.asarray(self.memory["taken"])
        found = {f"data/synthetic/{c:02d}": float(n) for c, n in enumerate(taken)}
        return {"data/synthetic": float(taken.sum()), **found, **(self.figures if server_round == 1 else {})}


def _distribute(pool: Examples, wanted: Counts, rng: np.random.Generator, own: bool) -> list[Examples]:
    return [
        select_samples(pool, torch.from_numpy(rows))
        for rows in assign(wanted, pool.y.numpy(), pool.d.numpy(), rng, own)
    ]


def rarest_classes(counts: Counts) -> tuple[int, ...]:
    """The 30 % of classes with the fewest rows in the clients' reports, which is all the method knows about rarity."""
    total = counts.sum(axis=(0, 2))
    return tuple(int(c) for c in np.argsort(total, kind="stable")[: max(1, int(0.3 * len(total) + 0.5))])
