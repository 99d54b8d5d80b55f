"""One run's account in the site's ledger: each message is answered once, and no more of them than the plan covers.

A message is known by its step, which counts a run's messages, and by the digest of its content. The first message of a
step, and of a training round, is the only one that is answered: the reply is stored and sent again, byte for byte, when
the same message comes again (after a resume). So a coordinator gets one draw of the site's noise for each round, and
nothing to average or subtract. Another message for the step or the round is refused, as is one beyond the plan's
rounds, queries and runs, or beyond the site's own ``budget:``.

A masked sum is opened for one set of sites, the first that the site was asked to agree to: any other set for the same
request is refused, whatever step it comes in, and after a release too (`MaskedSum`). Two sets could be subtracted.

Kinds of lines in the ledger: ``run`` (joined), ``asked`` (a message was accepted; counted from then on), ``sent`` (its
reply is stored and leaves), ``release`` and ``reset`` (a person's decisions), ``lineage``, ``restart``.

```
state/runs/<run>/replies/000012.safetensors    the reply to step 12
```

Replies are kept as long as a resume may ask for them: since the checkpoint before the last one, at most `MOST_REPLIES`.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import ArrayRecord, Message, RecordDict

from fedimb.annotation.private import write_private
from fedimb.config.load import config_sha
from fedimb.config.parts import contracts_of
from fedimb.contracts import platform as names
from fedimb.deploy.home import NodeHome
from fedimb.deploy.incidents import NOT_APPROVED, OVER_BUDGET, Shareable
from fedimb.deploy.registered_data.data_version import DataVersion
from fedimb.deploy.site.ledger import Ledger, LedgerDamaged
from fedimb.deploy.site.pairwise_masks import request_digest
from fedimb.deploy.site.spending import ABOUT, Spent, beyond, charge, join_lineages, site_set, spent, text
from fedimb.deploy.study_plan.budget import counts_precision, most_round, update_precision
from fedimb.deploy.study_plan.outbound_records import MASKED, OPENING, message_counts
from fedimb.deploy.study_plan.plan import StudyPlan
from fedimb.errors import ConfigError, FedimbError, nearest
from fedimb.plain import JsonObject
from fedimb.privacy.egress_filter import declared_for
from fedimb.privacy.recoverable_sum import can_recover, least_sites
from fedimb.privacy.secrets import clients_in_sum
from fedimb.records import pack, unpack
from fedimb.schema import RunConfig

MOST_REPLIES = 32
"""Most replies kept of one run, whatever ``checkpoint.every`` says, which the coordinator chooses."""
_RECOVERED = {f"query.{query}" for query in MASKED}
_AGREE, _OPEN = OPENING
_JOIN = f"query.{names.JOIN_SITE}"


@dataclass(frozen=True)
class Slot:
    """What was asked in one step of a run.

    Attributes:
        type, round, digest: of the message.
        reply: SHA-256 (hex) of the stored reply; empty if none left yet.
    """

    type: str
    round: int
    digest: str
    reply: str = ""


@dataclass(frozen=True)
class MaskedSum:
    """A masked sum that this site was asked for.

    Attributes:
        clients: those whose masks are in it.
        rows: what it is about, ``train`` or ``validation`` rows.
        alive: those whose figures may be added up, as this site agreed; None: it agreed to nothing yet.
    """

    clients: tuple[int, ...]
    rows: str
    alive: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SumRequest:
    """What a message that opens a masked sum says: the request's digest (hex), who was asked, and who is in the sum."""

    digest: str
    clients: tuple[int, ...]
    alive: tuple[int, ...]

    @staticmethod
    def of(message: Message) -> "SumRequest":
        """Read a message. Raises ValueError if it does not say all of it."""
        sent: dict[str, Any] = dict(message.content.config_records.get(names.SUM) or {})
        lists = [sent.get(key) for key in ("clients", "alive")]
        if not isinstance(sent.get("request"), str) or not all(
            isinstance(one, list) and all(type(client) is int for client in one) for one in lists
        ):
            raise ValueError("the message does not say which sum it opens")
        clients, alive = (tuple(one) for one in lists if isinstance(one, list))
        return SumRequest(sent["request"], clients, alive)


@dataclass
class RunBook:
    """A run as the ledger has it.

    Attributes:
        sums: masked sums by the request's digest (hex); a release does not remove them.
        bound: plan, configuration, client id, number of clients and data set it joined with; None: it never joined.
        versions: versions of the data set it joined with.
        slots: by step; without those that a person released.
    """

    bound: JsonObject | None = None
    versions: set[str] = field(default_factory=set)
    slots: dict[int, Slot] = field(default_factory=dict)
    sums: dict[str, MaskedSum] = field(default_factory=dict)

    @staticmethod
    def of(ledger: Ledger, run: str) -> "RunBook":
        """Read a run's lines."""
        book = RunBook()
        lines = [line for line in ledger.lines(text("run", run)) if line["facts"].get("run") == run]
        for line in reversed(lines):
            facts = line["facts"]
            match line["kind"]:
                case "run":
                    book.bound = facts["bound"]
                    book.versions.add(facts["version"])
                case "asked":
                    book.slots[facts["step"]] = Slot(facts["type"], facts["round"], facts["digest"])
                    book._note_sum(facts)
                case "sent":
                    if slot := book.slots.get(facts["step"]):
                        book.slots[facts["step"]] = replace(slot, reply=facts["reply"])
                case "release":
                    book.slots = {s: slot for s, slot in book.slots.items() if slot.round < facts["from_round"]}
        return book

    def _note_sum(self, facts: JsonObject) -> None:
        """A masked sum that was asked for, or a set of sites that was agreed to; the first of each stays."""
        if (request := facts.get("request")) is None:
            return
        if "clients" in facts:
            self.sums.setdefault(request, MaskedSum(tuple(facts["clients"]), facts["rows"]))
        elif self.sums[request].alive is None:
            self.sums[request] = replace(self.sums[request], alive=tuple(facts["alive"]))


@dataclass(frozen=True)
class Asked:
    """A message as the ledger knows it: its type, round and step, and the digest of what the site computes from."""

    type: str
    round: int
    step: int
    digest: str

    @staticmethod
    def of(message: Message) -> "Asked":
        """Read a message. Raises ValueError if it has no round and step."""
        step: dict[str, Any] = dict(message.content.config_records.get(names.STEP) or {})
        numbers = step.get("round"), step.get("step")
        if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers):
            raise ValueError("the message has no round and step")
        # state-keep only says which old states to delete; it depends on how often the coordinator saved.
        rest = json.dumps(sorted((key, value) for key, value in step.items() if key != "state-keep"), default=repr)
        digest = hashlib.sha256(request_digest(message) + rest.encode())
        return Asked(message.metadata.message_type, int(step["round"]), int(step["step"]), digest.hexdigest())


class Account:
    """The ledger's view of one run while one message is answered.

    Args:
        home: the node's folder.
        run: the run's name.
        plan: the approved plan.
        config: the run's configuration as the coordinator sent it.
        client, clients: this site's client id, and the number of clients.
        data: the version of the data set the run uses.
    """

    def __init__(
        self, home: NodeHome, run: str, plan: StudyPlan, config: RunConfig, client: int, clients: int, data: DataVersion
    ) -> None:
        self._home, self._run, self._plan, self._config = home, run, plan, config
        self._clients, self._data = clients, data
        self._ledger = Ledger(home)
        self._asked: Asked | None = None
        self._bound = {"plan": plan.sha, "config": config_sha(config), "client": client, "clients": clients}
        self._bound["data"] = data.name

    @property
    def mark(self) -> JsonObject | None:
        """The ledger's mark, for the audit line; None if it could not be read."""
        return self._ledger.mark()

    @contextlib.contextmanager
    def _open(self) -> Any:
        try:
            with self._ledger.locked():
                yield RunBook.of(self._ledger, self._run)
        except LedgerDamaged as error:
            site = self._home.site
            raise Shareable(
                OVER_BUDGET, f"{site}'s ledger is not as it was written: nothing leaves until a person there acts"
            ) from error

    def _refuse(self, text: str) -> NoReturn:
        raise Shareable(OVER_BUDGET, f"{self._home.site} {text}")

    def check_join(self) -> None:
        """Check that the run may join, or join again, before anything about it is stored.

        Raises:
            Shareable: the run joined with other settings, or the plan's runs or the site's budget are used up.
        """
        with self._open() as book:
            self._check_join(book)

    def _check_join(self, book: RunBook) -> None:
        if book.bound is not None:
            self._check_bound(book)
        elif len(self._plan_runs()) >= self._plan.runs:
            covers = "1 run" if self._plan.runs == 1 else f"{self._plan.runs} runs"
            self._refuse(
                f"takes part in no more runs of plan {self._plan.sha}: it covers {covers}. Resume them, or make a "
                "plan for more with fedimb deploy plan --runs N"
            )
        if self._data.version not in book.versions:
            self._check_budget(Spent(runs=book.bound is None, queries=1))
        if self._home.config.budget.epsilon is not None and not update_precision(self._config.privacy, 1):
            self._check_budget(Spent(noiseless=1))

    def _check_bound(self, book: RunBook) -> None:
        assert book.bound is not None
        if wrong := [key for key, value in self._bound.items() if book.bound[key] != value]:
            self._refuse(f"joined this run with another {wrong[0]}: start a new run")

    def _plan_runs(self) -> set[str]:
        lines = self._ledger.lines('"kind":"run"', text("plan", self._plan.sha))
        return {line["facts"]["run"] for line in lines if line["facts"]["bound"]["plan"] == self._plan.sha}

    def _check_budget(self, more: Spent) -> None:
        budget = self._home.config.budget
        if why := beyond(spent(self._ledger, self._data.name, budget) + more, budget):
            self._refuse(f"answers no more than {why}")

    def accept(self, message: Message) -> RecordDict | None:
        """Accept a message, and count it. Returns the stored reply if this message was answered before.

        Raises:
            Shareable: the message is not the one answered before, or more than the plan or the site's budget covers.
        """
        if message.metadata.message_type == _JOIN:
            return None  # `check_join` was called; what it replies depends on the pinned data alone
        try:
            asked = self._asked = Asked.of(message)  # now: what handles the message may change it
        except ValueError as error:
            self._refuse(f"answers no message without a place in a run: {error}")
        with self._open() as book:
            if book.bound is None:
                site = self._home.site
                raise Shareable(NOT_APPROVED, f"{site} has not joined this run: start it with fedimb deploy run")
            self._check_bound(book)
            if (slot := self._slot(book, asked)) is not None:
                return self._stored(asked, slot) if slot.reply else None
            self._check_plan(book, asked)
            more, about = self._masked(message, book) if asked.type in OPENING else (self._cost(message, asked), {})
            if asked.type in _RECOVERED:
                about = self._sum_facts(message, asked)
            self._check_budget(more)
            facts = {"run": self._run, "type": asked.type, "round": asked.round, "step": asked.step}
            facts |= {"digest": asked.digest} | about
            charge(self._ledger, "asked", self._data.name, facts, more, durable=False)
        return None

    def _slot(self, book: RunBook, asked: Asked) -> Slot | None:
        """What was asked in this step before; None if nothing was. Raises Shareable if it was another message."""
        slot = book.slots.get(asked.step)
        if slot is None and asked.type == "train":
            slot = next((s for s in book.slots.values() if (s.type, s.round) == ("train", asked.round)), None)
        if slot is not None and slot.digest != asked.digest:
            what = f"round {asked.round}" if asked.type == "train" else f"{asked.type} of step {asked.step}"
            self._refuse(
                f"was asked for {what} before with another message, and answers one. If the coordinator lost the state "
                f"of this run, a person there can release it: fedimb node ledger --release {self._run} --from-round "
                f"{asked.round}"
            )
        return slot

    def _check_plan(self, book: RunBook, asked: Asked) -> None:
        most, last = message_counts(self._config, self._config.rounds), most_round(self._config)
        if asked.round > last or (asked.type == "train" and asked.round < 1):
            self._refuse(f"answers no round {asked.round}: this run has {self._config.rounds} rounds by its plan")
        answered = sum(slot.type == asked.type for slot in book.slots.values())
        if answered >= most[asked.type]:
            self._refuse(f"was asked {asked.type} {answered} times in this run, which is all that its plan covers")

    def _cost(self, message: Message, asked: Asked) -> Spent:
        """What answering adds to the counts of the data set."""
        if asked.type == "train":
            cohort = message.content.config_records[names.STEP].get("cohort", self._clients)
            precision = update_precision(self._config.privacy, cohort if isinstance(cohort, int) else self._clients)
            return Spent(rounds=1, noiseless=int(not precision), updates=precision)
        masked = any(r.about == "masked" for r in declared_for(asked.type, contracts_of(self._config)))
        if not masked:
            return Spent(queries=1)
        clients = self._clients_in(message)
        noisy = asked.type == f"query.{names.NOISY_COUNTS}"
        precision = counts_precision(self._config.prior, len(clients)) if noisy else 0.0
        sites = site_set(self._plan, clients)
        if asked.type in _RECOVERED and can_recover(len(clients)):  # the set it is over is known when it is opened
            return Spent(queries=1, counts=precision)
        return Spent(queries=1, counts=precision, sum_sets=(sites,))

    def _clients_in(self, message: Message) -> list[int]:
        """The clients that a request for masked figures names. Raises Shareable if they are not sites of the plan."""
        try:
            clients = clients_in_sum(message.content)
        except FedimbError as error:
            self._refuse(f"takes part in no such sum: {error}")
        if max(clients) >= len(self._plan.sites):
            self._refuse(f"takes part in sums over the {len(self._plan.sites)} sites of the plan alone")
        return clients

    def _sum_facts(self, message: Message, asked: Asked) -> JsonObject:
        """What the ledger keeps of a request for masked figures, by which it is known again when it is opened.

        Scores and losses are about validation rows, whatever the request calls its view.
        """
        view: Mapping[str, Any] = message.content.config_records.get("view") or {}
        scores = asked.type in (f"query.{names.MASKED_SCORES}", f"query.{names.MASKED_LOSSES}")
        rows = "validation" if scores or view.get("name") == "validation" else "train"
        return {"request": request_digest(message).hex(), "clients": self._clients_in(message), "rows": rows}

    def _masked(self, message: Message, book: RunBook) -> tuple[Spent, JsonObject]:
        """What a message that opens a masked sum adds to the counts, and what the ledger keeps of it.

        Raises:
            Shareable: it is not about a sum that this site was asked for, the set of sites is too small, or the site
                agreed to another one.
        """
        try:
            asked = SumRequest.of(message)
        except ValueError as error:
            self._refuse(f"opens no sum: {error}")
        found, own = book.sums.get(asked.digest), self._bound["client"]
        if found is None or found.clients != asked.clients or not can_recover(len(found.clients)):
            self._refuse("opens no sum but one that it was asked for in this run, with the same sites")
        least, alive = least_sites(len(found.clients)), asked.alive
        ordered = list(alive) == sorted({*alive}) and {*alive} <= {*found.clients}
        if not ordered or own not in alive or len(alive) < least:
            self._refuse(
                f"opens a sum over at least {least} of {len(found.clients)} sites, itself among them; it was asked for "
                f"one over {len(alive)}"
            )
        if found.alive is not None and found.alive != alive:
            self._refuse(
                f"agreed to open this sum over {self._names(found.alive)}, and opens it over no other sites: two sums "
                "could be subtracted"
            )
        if message.metadata.message_type == _OPEN:
            if found.alive is None:
                self._refuse("opens no sum before it has agreed to the sites in it")
            return Spent(queries=1), {}
        more = Spent(queries=1)
        if found.alive is None:
            sites = f"{site_set(self._plan, alive)}{ABOUT}{found.rows}"
            more = replace(more, sum_sets=(sites,), recovered=int(alive != found.clients))
        return more, {"request": asked.digest, "alive": list(alive)}

    def _names(self, clients: Sequence[int]) -> str:
        return ", ".join(self._plan.sites[client].name for client in clients)

    def _stored(self, asked: Asked, slot: Slot) -> RecordDict:
        try:
            data = self._file(asked.step).read_bytes()
        except OSError:
            self._refuse(
                f"answered round {asked.round} before and no longer keeps that reply (withdrawn, or older than two "
                f"checkpoints). A person there can release it: fedimb node ledger --release {self._run} --from-round "
                f"{asked.round}"
            )
        if hashlib.sha256(data).hexdigest() != slot.reply:
            raise FedimbError(f"{self._file(asked.step)} is not the reply that was sent: it was changed")
        return unpack(data)

    def _file(self, step: int) -> Path:
        return self._home.file("state", "runs", self._run, "replies", f"{step:06d}.safetensors")

    def keep(self, message: Message, content: RecordDict) -> RecordDict:
        """Store a reply that is about to leave, and return what may leave: what another process sent, if it was first.

        Raises:
            Shareable: the message was answered otherwise in the meantime, or the site's budget of samples is used up.
        """
        if message.metadata.message_type == _JOIN:
            self._keep_join()
            return content
        asked = self._asked
        assert asked is not None
        with self._open() as book:
            slot = self._slot(book, asked)
            if slot is None:
                self._refuse(f"released round {asked.round} while this message was being answered: ask again")
            if slot.reply:
                return self._stored(asked, slot)
            more = Spent(samples=self._samples(asked.type, content))
            self._check_budget(more)
            data = pack(content)
            self._home.folder("state", "runs", self._run, "replies")
            write_private(self._file(asked.step), data)
            facts = {"run": self._run, "step": asked.step, "reply": hashlib.sha256(data).hexdigest()}
            charge(self._ledger, "sent", self._data.name, facts | {"bytes": len(data)}, more)
            self._drop_old()
        return content

    def _keep_join(self) -> None:
        with self._open() as book:
            self._check_join(book)
            if self._data.version in book.versions:
                return
            self._note_lineage()
            facts = {"run": self._run, "bound": self._bound, "version": self._data.version}
            charge(self._ledger, "run", self._data.name, facts, Spent(runs=int(book.bound is None), queries=1))

    def _note_lineage(self) -> None:
        join_lineages(self._ledger, self._home, self._data)

    def _samples(self, kind: str, content: RecordDict) -> int:
        """Number of synthetic rows in a reply."""
        made = [r.key for r in declared_for(kind, contracts_of(self._config)) if r.reveals == "synthetic"]
        found = [content[key] for key in made if key in content]
        shapes = [array.shape for one in found if isinstance(one, ArrayRecord) for array in one.values()]
        return max((shape[0] for shape in shapes if shape), default=0)

    def _drop_old(self) -> None:
        most = min(2 * self._config.checkpoint.every + 2, MOST_REPLIES)
        for path in sorted(self._file(0).parent.glob("*.safetensors"))[:-most]:
            path.unlink(missing_ok=True)


def release(home: NodeHome, run: str, from_round: int | None, by: str, reason: str) -> tuple[int, int]:
    """Allow a run's messages from a round on to be asked once more, by decision of a person.

    They are counted again: with noise, each costs its epsilon a second time.

    Args:
        from_round: None: the last round that was asked for.

    Returns:
        (first round released, number of messages).

    Raises:
        ConfigError: nothing was asked in this run, or not from that round on.
    """
    ledger = Ledger(home)
    with ledger.locked():
        book = RunBook.of(ledger, run)
        if not book.slots:
            known = sorted({line["facts"]["run"] for line in ledger.lines('"kind":"run"')})
            raise ConfigError(f"nothing was asked in a run '{run}' here.{nearest(run, known)}")
        first = max(slot.round for slot in book.slots.values()) if from_round is None else from_round
        count = sum(slot.round >= first for slot in book.slots.values())
        if not count:
            raise ConfigError(f"run {run} was not asked for round {first} or a later one")
        facts = {"run": run, "from_round": first, "messages": count, "by": by, "reason": reason}
        ledger.append("release", facts)
        ledger.log("release", facts)
    return first, count
