"""Where FedSSG's samples come from: one sub-program per source (see `fedimb.strategies.fedssg`)."""

import copy
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict

from fedimb.contracts.fedssg import ABOUT, FIGURES, GENERATOR, MAKE, SAMPLES, TAUGHT, TEACH, VERDICTS, VETO, WANTED
from fedimb.errors import RunFailed
from fedimb.generation.averaging import average
from fedimb.generation.base import Generator as Made
from fedimb.generation.coverage import coverage
from fedimb.generation.devices import restyle
from fedimb.generation.examples import Examples
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.sharing_plan import cells, divide_among_clients
from fedimb.generation.style import Style, describe_style
from fedimb.generation.training import Training, floor_check
from fedimb.generation.transport import concatenate_samples, from_record, select_samples, to_record
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.seeds import Stream, seed_int
from fedimb.serverapp.auxiliary_model import AuxiliaryModel
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Reply, Rounds, ServerWork, Step, Wait

Counts = np.ndarray
Program = Generator[Step, Any, Examples]


def _mean(made: Made, replies: Sequence[Reply]) -> Arrays:
    """Average the clients' generators so that a rare class keeps its embedding row (`fedimb.generation.averaging`)."""
    taught = [arrays_of(reply.content, TAUGHT) for reply in replies]
    return average(
        [arrays_of(reply.content, GENERATOR) for reply in replies],
        np.stack([rows["classes"] for rows in taught]),
        np.stack([rows["domains"] for rows in taught]),
        made.class_rows(),
        made.domain_rows(),
    )


def holders(counts: Counts) -> Counts:
    """[C] number of clients that hold each class, from counts [K, C, D]."""
    return (counts.sum(axis=2) > 0).sum(axis=0).astype(np.int64)


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
        self.generator_config = GeneratorConfig(
            generator,
            training,
            run.n_classes,
            max(1, len(server.domains())),
            server.input_shape(),
            run.class_names,
            seed_int(run.seed, Stream.METHOD, 1),
        )

    def public(self, sizes: Counts, styles: Mapping[int, Style]) -> Program:
        """Samples of a generator trained at the server on its own rows; ``sizes`` [C, D].

        For a device on which the server has not seen the class, samples are made without a device and take the colours
        in ``styles``.
        """

        def work() -> RecordDict:
            rows = self.server.public()
            held = np.bincount(rows.y, minlength=self.run.n_classes)
            floor_check(held, self.run.class_names, force=self.force)
            cache = GeneratorCache(self.generator_config, Examples(rows.x, rows.y, rows.d), self.run.working)
            y, d = cells(sizes)
            if not len(y):
                return RecordDict({"samples": to_record(Examples(rows.x[:0], y, d))})
            seen = torch.from_numpy(coverage(rows.y.numpy(), rows.d.numpy(), *sizes.shape) > 0)[y, d]
            asked = torch.where(seen, d, sizes.shape[1])  # unsaid: a class never seen on a device comes out as another
            x = cache.samples(y, asked, self._seed())
            if styles:
                x = restyle(x, d, ~seen, styles, describe_style(rows.x, least=1))
            return RecordDict({"samples": to_record(Examples(x, y, d))})

        kept = yield ServerWork("samples", work)
        return from_record(kept.array_records["samples"])

    def averaged(self, counts: Counts, sizes: Counts, rounds: int, local_steps: int, report: dict[str, Any]) -> Program:
        """Samples of a generator averaged over the clients; each may veto a class that looks like its own records."""
        floor_check(counts.sum(axis=(0, 2)), self.run.class_names, force=self.force)
        made = self.generator_config.build()
        made.set_common_scale()
        generator = AuxiliaryModel(
            TEACH,
            GENERATOR,
            {name: value.cpu().numpy() for name, value in made.state_dict().items()},
            partial(_mean, made),
            lambda number: RecordDict({ABOUT: ConfigRecord({"round": number, "rounds": rounds, "steps": local_steps})}),
        )
        earlier = sum(name.startswith("generator") for name in self.run.models)  # one for each earlier labelling cycle
        name = f"generator-{earlier + 1}" if earlier else "generator"
        self.run.models[name] = lambda draw: generator
        yield Rounds(rounds, model=name)

        def work() -> RecordDict:
            state = {name: torch.from_numpy(np.array(value)) for name, value in generator.parameters.items()}
            trained = copy.deepcopy(made)  # a step's work must change nothing but its result
            trained.load_state_dict(state)
            y, d = cells(sizes * (counts.sum(axis=(0, 2)) > 0)[:, None])
            drawn = torch.Generator().manual_seed(self._seed())
            x = trained.eval().sample(y, d, drawn, self.run.working("samples", len(y)))
            return RecordDict({"samples": to_record(Examples(x, y, d))})

        kept = yield ServerWork("samples", work)
        samples = from_record(kept.array_records["samples"])
        content = RecordDict({SAMPLES: to_record(samples), GENERATOR: array_record(generator.parameters)})
        content[WANTED] = array_record({"holders": holders(counts)})
        replies = yield from self._decided(Query(VETO, content))
        verdicts = np.stack([arrays_of(reply.content, VERDICTS)["verdicts"] for reply in replies])
        allowed = (verdicts != 0).all(axis=0)  # -1: a client without the class has no verdict
        report["vetoed"] = [self.run.class_names[c] for c in np.flatnonzero(~allowed)]
        return select_samples(samples, torch.from_numpy(allowed)[samples.y])

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
            raise RunFailed(
                "strategy=fedssg: no class of any client passed its export gate (see audit.json in each site's "
                "outbox); use more rows per class, another source, or, in a simulation, strategy.fedssg.gate=report"
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
