"""Where FedSSG's samples come from: one sub-program per source (see `fedimb.strategies.fedssg`)."""

import json
import logging
from collections.abc import Generator, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict

from fedimb.contracts.fedssg import FIGURES, MAKE, SAMPLES, VERDICTS, VETO, WANTED
from fedimb.errors import RunFailed
from fedimb.generation.coverage import coverage
from fedimb.generation.devices import restyle
from fedimb.generation.examples import Examples, check_beside
from fedimb.generation.federated import at_least, draw_by_class, load_into, sample_seed
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.sharing_plan import cells, divide_among_clients
from fedimb.generation.style import Style, describe_style
from fedimb.generation.training import Training, floor_check
from fedimb.generation.transport import concatenate_samples, from_record, to_record
from fedimb.records import array_record, arrays_of
from fedimb.seeds import Stream, seed_int
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Reply, Rounds, ServerWork, Step, Wait
from fedimb.strategies.fedssg_federated import FederatedGenerator, Votes

log = logging.getLogger("fedimb")
Counts = np.ndarray
Program = Generator[Step, Any, Examples]


def holders(counts: Counts) -> Counts:
    """[C] number of clients that hold each class, from counts [K, C, D]."""
    return (counts.sum(axis=2) > 0).sum(axis=0).astype(np.int64)


def config_of(generator: Mapping[str, Any], training: Training, server: Server, seed: int) -> GeneratorConfig:
    """A generator of the run's data."""
    names, devices = server.class_names(), max(1, len(server.domains()))
    return GeneratorConfig(generator, training, len(names), devices, server.input_shape(), names, seed)


class Pools:
    """Makes the pools of synthetic samples of one run.

    Args:
        run, server: as passed to the method.
        generator: ``{name: ..., ...}`` of the kind `generator`, or empty.
        training: training settings of the generator.
        force: whether to train on classes with fewer rows than the minimum.

    Attributes:
        figures: measurements of the export gates, by the name they are logged under.
    """

    def __init__(
        self, run: RunContext, server: Server, generator: Mapping[str, Any], training: Training, force: bool
    ) -> None:
        self.run, self.server, self.force = run, server, force
        self.figures: dict[str, float] = {}
        self.generator_config = config_of(generator, training, server, seed_int(run.seed, Stream.METHOD, 1))

    def server_rows(self) -> Examples:
        """The server's own rows; none if it has none, which only a generator that is not trained can do without.

        Raises:
            ConfigError: the generator is trained, and the server has no rows.
        """
        if self.generator_config.trainable or self.server.has_public():
            rows = self.server.public()
            return Examples(rows.x, rows.y, rows.d)
        none = torch.zeros(0, dtype=torch.int64)
        return Examples(torch.zeros((0, *self.server.input_shape())), none, none)

    @cached_property
    def known_cells(self) -> np.ndarray:
        """[C, D] bool: which classes the server's generator learns from rows of which device, or holds."""
        config = self.generator_config
        if not config.trainable:
            return config.build().known_cells().numpy()
        rows = self.server.public()
        return coverage(rows.y.numpy(), rows.d.numpy(), config.n_classes, config.n_domains) > 0

    def public(self, sizes: Counts, styles: Mapping[int, Style]) -> Program:
        """Samples of a generator trained at the server on its own rows, or of one that serves rows; ``sizes`` [C, D].

        For a device on which the generator does not know the class, samples are made without a device and take the
        colours in ``styles``.
        """

        def work() -> RecordDict:
            rows, trained = self.server_rows(), self.generator_config.trainable
            if trained:
                held = np.bincount(rows.y, minlength=self.run.n_classes)
                floor_check(held, self.run.class_names, force=self.force)
            cache = GeneratorCache(self.generator_config, rows, self.run.working)
            y, d = cells(sizes)
            if not len(y):
                return RecordDict({"samples": to_record(Examples(rows.x[:0], y, d))})
            seen = torch.from_numpy(self.known_cells)[y, d]
            asked = torch.where(seen, d, sizes.shape[1])  # unsaid: a class never seen on a device comes out as another
            x = cache.samples(y, asked, self._seed())
            if not trained:
                check_beside(f"generator '{self.generator_config.name}'", x, rows.x)
            if styles:
                x = restyle(x, d, ~seen, styles, describe_style(rows.x if trained else x, least=1))
            return RecordDict({"samples": to_record(Examples(x, y, d))})

        kept = yield ServerWork("samples", work)
        return from_record(kept.array_records["samples"])

    def teach(
        self, counts: Counts, rounds: int, local_steps: int, report: dict[str, Any]
    ) -> Generator[Step, Any, FederatedGenerator]:
        """Rounds of a generator averaged over the clients; a class of few rows at a client does not teach it.

        Raises:
            RunFailed: no client taught it anything.
        """
        made = self.generator_config.build()
        made.set_common_scale()
        earlier = sum(name.startswith("generator") for name in self.run.models)  # one for each earlier labelling cycle
        generator = FederatedGenerator(made, self.run.n_clients, rounds, local_steps, earlier)
        name = f"generator-{earlier + 1}" if earlier else "generator"
        self.run.models[name] = lambda draw: generator
        yield Rounds(rounds, model=name)
        self._note_teaching(generator, counts, report)
        return generator

    def _note_teaching(self, generator: FederatedGenerator, counts: Counts, report: dict[str, Any]) -> None:
        names, seen = self.run.class_names, generator.seen()
        worst = np.fmax.reduce([np.full(len(names), np.nan), *generator.leaks[:, :, 0]])
        given = np.fmax.reduce([np.zeros(len(names)), *generator.leaks[:, :, 1]]) > 0
        report["untaught"] = [names[c] for c in np.flatnonzero(~seen & (counts.sum(axis=(0, 2)) > 0))]
        report["given_away_by_weights"] = [names[c] for c in np.flatnonzero(given)]
        report["weights_mia_auc"] = [
            {names[c]: float(auc) for c, auc in enumerate(aucs) if np.isfinite(auc)}
            for aucs in generator.leaks[:, :, 0]
        ]
        self.figures |= {f"privacy/weights_mia_auc/{names[c]}": float(worst[c]) for c in np.flatnonzero(worst == worst)}
        if not seen.any():
            raise RunFailed(
                "strategy=fedssg: no client taught the generator anything: none has enough rows of a class "
                "(20, and strategy.fedssg.audit.min_count, after its holdout), or an attack on the weights knew them "
                f"({', '.join(report['given_away_by_weights']) or 'of no class'}); use another source"
            )
        if report["untaught"]:
            log.warning(
                "fedssg: nobody taught the generator %s: too few rows at each client, or given away by its weights; no "
                "samples of these classes are made",
                ", ".join(report["untaught"]),
            )

    def averaged(self, generator: FederatedGenerator, sizes: Counts, report: dict[str, Any]) -> Program:
        """Samples of the averaged generator, of the classes that everybody who taught them allows.

        Raises:
            RunFailed: of the classes that are wanted none is allowed.
        """
        names, sizes = self.run.class_names, at_least(sizes * generator.cells())
        asked = generator.asked(range(self.run.n_clients), sizes)
        replies = yield from self._decided(Query(VETO, each=asked))
        votes = Votes.of(replies, generator)
        wanted, allowed = sizes.any(axis=1), votes.allowed()
        refused = np.flatnonzero(wanted & ~allowed)
        report["vetoed"] = [names[c] for c in refused]
        report["verdicts"] = {str(client): found.tolist() for client, found in votes.verdicts.items()}
        if not (wanted & allowed).any():
            self.run.artifact("fedssg.json", (json.dumps(report, indent=1) + "\n").encode())
            raise RunFailed(
                f"strategy=fedssg: no class passed the vote of those who taught it: {votes.words(refused, names)} (see "
                "audit.json in each site's outbox, and artifacts/fedssg.json); use more rows per class, another "
                "source, or, in a simulation, strategy.fedssg.gate=report"
            )
        drawn = sizes * allowed[:, None]

        def work() -> RecordDict:
            trained = load_into(self.generator_config.build(), generator.parameters).eval()
            shown = self.run.working("samples", int(drawn.sum()))
            samples = draw_by_class(trained, drawn, partial(sample_seed, self.run.seed), shown)
            return RecordDict({"samples": to_record(samples)})

        kept = yield ServerWork("samples", work)
        return from_record(kept.array_records["samples"])

    def of_clients(self, clients: list[int], counts: Counts, sizes: Counts, report: dict[str, Any]) -> Program:
        """Samples made by every client that holds a class; what its export gate refuses is not sent."""
        each = {
            client: RecordDict({WANTED: array_record({"wanted": share, "holders": holders(counts)})})
            for client, share in zip(clients, divide_among_clients(sizes, counts), strict=True)
        }
        replies = yield from self._decided(Query(MAKE, each=each))
        verdicts = {reply.client: arrays_of(reply.content, VERDICTS)["verdicts"] for reply in replies}
        report["verdicts"] = {str(client): found.tolist() for client, found in verdicts.items()}
        parts = [from_record(r.content.array_records[SAMPLES]) for r in replies if SAMPLES in r.content]
        if not parts:
            self.run.artifact("fedssg.json", (json.dumps(report, indent=1) + "\n").encode())
            raise RunFailed(
                "strategy=fedssg: no class of any client passed its export gate (verdicts in artifacts/fedssg.json, "
                "reasons in audit.json in each site's outbox); use more rows per class, another source, or, in a "
                "simulation, strategy.fedssg.gate=report"
            )
        return concatenate_samples(parts)

    def _decided(self, query: Query) -> Generator[Step, Any, list[Reply]]:
        """Repeat the query until no person has to decide anything; meanwhile the run stops and waits."""
        while True:
            replies: list[Reply] = yield query
            waiting = [r.client for r in replies if arrays_of(r.content, VERDICTS)["waiting"][0]]
            if not waiting:
                self._read_figures(replies)
                return replies
            shown = ", ".join(map(str, waiting[:8])) + (", ..." if len(waiting) > 8 else "")
            yield Wait(f"release of samples at {len(waiting)} clients ({shown}); see fedimb outbox list")

    def _read_figures(self, replies: list[Reply]) -> None:
        """Keep the gates' figures: the highest over all clients, as one leak is enough; for ``passed`` the lowest."""
        for reply in replies:
            for name, value in reply.content.metric_records[FIGURES].items():
                worse = min if name.startswith("privacy/passed") else max
                self.figures[name] = worse(self.figures.get(name, float(value)), float(value))  # type: ignore[arg-type]

    def _seed(self) -> int:
        return seed_int(self.run.seed, Stream.METHOD, 2)
