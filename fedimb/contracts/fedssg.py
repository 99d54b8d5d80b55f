"""What server and clients agree on in FedSSG: settings, what clients hold, what is made where, what clients receive."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts, flag
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import Count, PositiveCount, Range, Share

Source = Literal["server_public", "fed_diffusion", "client_generators"]
Made = Literal["generator", "public", "oversample", "smote", "composite"]
Mode = Literal["enforce", "report", "off"]

COVERAGE_COUNTS = "x.coverage"
STYLE = "x.style"
GENERATOR = "x.generator"
TAUGHT = "x.taught"
LEAKAGE = "x.leakage"
SAMPLES = "x.samples"
VERDICTS = "x.verdicts"
FIGURES = "x.figures"
TAKEN = "x.taken"

WANTED = "x.wanted"
"""Sent to one client: samples wanted, or to be voted on, per class and device [C, D] int64."""
ABOUT = "x.about"
"""Sent to the clients: the numeric parameters of the query."""

COVERAGE = "fedssg_coverage"
"""Query: rows per class and device, with noise if the run configures it."""
TEACH = "fedssg_teach"
"""Query: train the generator in the message on this client's classes of enough rows for a round; fed_diffusion."""
MAKE = "fedssg_make"
"""Query: train the client's own generator, make the wanted samples, audit them, and return what may leave."""
VETO = "fedssg_veto"
"""Query: redraw the samples of the client's own classes from the generator, and vote on each class."""
TAKE = "fedssg_take"
"""Query: keep the samples in the message, or make the wanted rows from the client's own; from now on train on them."""


@dataclass(frozen=True)
class FedSSGSettings(Settings):
    """Settings of FedSSG.

    Attributes:
        source: who trains the generator: server_public (needs data.public), fed_diffusion, client_generators.
        made: generator; or a control with as many rows: public (the server's own rows unchanged), oversample, smote,
            composite (from each client's own rows).
        generator: {name: ..., ...} of the kind generator, with device and confidence (a filter by a classifier of the
            real rows); {}: flow for images, table_flow for rows.
        training: how the generator is trained: steps, batch, lr, ... of fedimb.generation.training.Training.
        plan: which client gets which samples; the settings of fedimb.generation.sharing_plan.Plan.
        pool: shared: clients draw from one pool; own: no sample goes to two of them.
        surplus: samples made per sample wanted, at least 1, because gates drop some.
        visits: share of its synthetic rows that a client visits per epoch, [0, 1].
        pretrain: epochs of the classifier on the server's rows before round 1; 0: none.
        screen: drop samples that the pretrained classifier doubts, or that are close to one of the server's real rows.
        rounds: fed_diffusion: rounds of generator training, each with local_steps at every client of a cohort.
        local_steps: fed_diffusion: steps of the generator per round and client.
        epsilon: privacy budget of the Laplace noise on each client's reported counts; null: none.
        style: clients describe the colours of devices with at least 32 images, for classes the server lacks on them.
        force: train a generator on fewer than 20 rows of a class (fed_diffusion: down to audit.min_count at a site);
            such classes never leave a site.
        gate: export gate of what was learned from clients' rows: enforce, report, off.
        audit: when a class may leave a site; the settings of fedimb.privacy.audit.types.GateSettings.
        encoder: {name: ..., ...} of the kind encoder: the gate measures distances between its features too; {}: none.
        holdout: share of a client's rows kept from every generator, for the gate to compare with, (0, 1).
        cross: client_generators: learn from all rows, and audit two extra generators, each trained on half of them,
            instead.
        release: auto, or manual: what passed the gate waits in the site's outbox until a person releases it.
        folder: the clients' site folders in a simulation; a real site sets FEDIMB_SITE_DIR.
    """

    method: ClassVar[str] = "fedssg"

    source: Source = "server_public"
    made: Made = "generator"
    generator: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=lambda: {"steps": 500})
    plan: Mapping[str, Any] = field(
        default_factory=lambda: {
            "balance": "both",
            "tau": 0.5,
            "rho_dev": 0.5,
            "rho_syn": 0.5,
            "w_max": 4.0,
            "exponent": 0.5,
            "least_rows": 1,
        }
    )
    pool: Literal["shared", "own"] = "shared"
    surplus: Annotated[float, Range(1)] = 2.0
    visits: Share = 0.5
    pretrain: Count = 20
    screen: bool = True
    rounds: PositiveCount = 10
    local_steps: PositiveCount = 100
    epsilon: Annotated[float | None, Range(0, low_allowed=False)] = None
    style: bool = False
    force: bool = False
    gate: Mode = "enforce"
    audit: Mapping[str, Any] = field(
        default_factory=lambda: {"min_count": 20, "alpha": 0.05, "power": 0.8, "copied": 0.1}
    )
    encoder: Mapping[str, Any] = field(default_factory=dict)
    holdout: Annotated[float, Range(0, 1, low_allowed=False, high_allowed=False)] = 0.5
    cross: bool = False
    release: Literal["auto", "manual"] = "auto"
    folder: str = "sites"


_VERDICTS = Record(
    VERDICTS,
    "arrays",
    "per class: 1 may leave, 0 may not, -1 not judged; whether a person must still decide",
    "aggregate",
    dtypes=("int32",),
    about="class",
    shape="C + 1",
    values={"verdicts": Values("C", low=-1, high=1, whole=True), "waiting": flag()},
)

_FIGURES = Record(
    FIGURES,
    "metrics",
    "what the export gate measured, per class: distances, duplicates, how well a membership attack does",
    "aggregate",
    about="class",
    shape="48 x C",
    values={"*": Values(optional=True)},
)

FEDSSG = Contract(
    name="fedssg",
    aggregation_weight="real",
    adds_rows=True,
    queries={
        COVERAGE: (
            Record(
                COVERAGE_COUNTS,
                "arrays",
                "rows of each class from each device",
                "aggregate",
                dtypes=("int32",),
                reveals="class_counts",
                about="class",
                shape="C x D",
                values={"counts": counts("C x D", noise="1/epsilon")},
            ),
            Record(
                STYLE,
                "arrays",
                "of each device with at least 32 images here: mean and spread of its colours, and how many images",
                "aggregate",
                dtypes=("float32", "int32"),
                optional=True,
                values={"mean": Values("D x c"), "std": Values("D x c", low=0), "rows": counts("D")},
            ),
        ),
        TEACH: (
            Record(
                GENERATOR,
                "arrays",
                "the generator's weights after training on this client's rows; embeddings of classes that it did not "
                "train as they were sent",
                "model",
                values={"*": Values(sent="value")},
            ),
            Record(
                TAUGHT,
                "arrays",
                "rows of each class and of each device the generator was trained on; none of a class with few rows",
                "aggregate",
                dtypes=("int64",),
                reveals="class_counts",
                about="class",
                shape="C + D",
                values={"classes": counts("C"), "domains": counts("D")},
            ),
            Record(
                LEAKAGE,
                "arrays",
                "per class: rows asked about and others, how well an attack tells them apart by the weights (AUC with "
                "interval, true-positive rate), whether the class was left out for it",
                "aggregate",
                dtypes=("float32",),
                about="class",
                shape="C x 7",
                values={"measured": Values("C x 7", low=0, high="rows", missing=True)},
            ),
        ),
        MAKE: (
            Record(
                SAMPLES,
                "arrays",
                "synthetic rows of the classes that passed the export gate and were released",
                "individual",
                dtypes=("uint8", "float32", "int64"),
                reveals="synthetic",
                optional=True,
                values={
                    "x": Values("n x input"),
                    "y": Values("n", low=0, high="C-1", whole=True),
                    "d": Values("n", low=0, high="D-1", whole=True),
                },
            ),
            _VERDICTS,
            _FIGURES,
        ),
        VETO: (_VERDICTS, _FIGURES),
        TAKE: (
            Record(
                TAKEN,
                "arrays",
                "synthetic or repeated rows of each class now trained on beside the real ones",
                "aggregate",
                dtypes=("int32",),
                about="class",
                shape="C",
                values={"taken": counts("C", None)},
            ),
        ),
    },
    often={
        COVERAGE: "once",
        TEACH: "once in each round of the generator (strategy.fedssg.rounds)",
        MAKE: "once, again while a release waits",
        VETO: "once",
        TAKE: "once",
    },
    most={COVERAGE: 1, TEACH: "rounds", MAKE: 1, VETO: 1, TAKE: 1},
)
register("contract", "fedssg")(FEDSSG)
