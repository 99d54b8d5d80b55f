"""What FedSSG's halves agree on: what clients hold, what is made where, and what clients were given."""

from fedimb.contracts.base import Contract, Record
from fedimb.registry import register

COVERAGE_COUNTS = "x.coverage"
STYLE = "x.style"
GENERATOR = "x.generator"
TAUGHT = "x.taught"
SAMPLES = "x.samples"
VERDICTS = "x.verdicts"
FIGURES = "x.figures"
TAKEN = "x.taken"

WANTED = "x.wanted"
"""To one client: samples wanted per class and device [C, D] int64."""
ABOUT = "x.about"
"""To the clients: numbers the query goes with."""

COVERAGE = "fedssg_coverage"
"""Query: rows per class and device, with noise where the run asks for it."""
TEACH = "fedssg_teach"
"""Query: train the generator that comes along, on this client's rows: a round of it; source fed_diffusion."""
MAKE = "fedssg_make"
"""Query: train a generator of one's own, make the samples wanted, audit them, and hand over what may leave."""
VETO = "fedssg_veto"
"""Query: hold the samples that come along against one's own records; a class that looks copied is vetoed."""
TAKE = "fedssg_take"
"""Query: keep the samples that come along, or make the rows wanted from one's own, and train on them from now on."""

_VERDICTS = Record(
    VERDICTS,
    "arrays",
    "per class: 1 may leave, 0 may not, -1 not judged; whether a person must still decide",
    "aggregate",
    dtypes=("int32",),
    about="class",
    shape="C + 1",
)

_FIGURES = Record(
    FIGURES,
    "metrics",
    "what the export gate measured, per class: distances, duplicates, how well a membership attack does",
    "aggregate",
    about="class",
    shape="12 x C",
)

FEDSSG = Contract(
    name="fedssg",
    aggregation_weight="real",
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
            ),
            Record(
                STYLE,
                "arrays",
                "of each device with at least 32 images here: mean and spread of its colours, and how many images",
                "aggregate",
                dtypes=("float32", "int32"),
                optional=True,
            ),
        ),
        TEACH: (
            Record(GENERATOR, "arrays", "the generator's weights after training on this client's rows", "model"),
            Record(
                TAUGHT,
                "arrays",
                "rows of each class and of each device the generator was trained on",
                "aggregate",
                dtypes=("int64",),
                reveals="class_counts",
                about="class",
                shape="C + D",
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
)
register("contract", "fedssg")(FEDSSG)
