"""What server and clients agree on for heads from class statistics: settings, counts, sums, held-out scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.contracts.settings import Settings
from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Positive, PositiveCount, Range

Head = Literal["lda", "ncm", "qda", "nb", "ridge", "fed3r", "fedcof", "fedcgs", "fishermix"]

REQUEST = "x.oneround"
"""Sent with `SUMS_OF`: units and kept classes; as arrays under `WEIGHTS` the rows' weights."""
WEIGHTS = "x.oneround_weights"
FITTED = "x.oneround_fitted"
"""Sent with `HELD_OUT_OF`: what rows are scored with."""

COUNTS = "x.oneround_counts"
SUMS = "x.oneround_sums"
SECOND = "x.oneround_second"
SQUARES = "x.oneround_squares"
SCATTER = "x.oneround_scatter"
NOISY = "x.oneround_noisy"
HELD_OUT = "x.oneround_held_out"

COUNTS_OF = "oneround_counts"
"""Query: rows of each class, whether there are any, and the size of the features."""
MASKED_COUNTS_OF = "oneround_masked_counts"
SUMS_OF = "oneround_sums"
"""Query: sums over the rows of the kept classes, in whole units (`fedimb.discriminant.statistics`)."""
MASKED_SUMS_OF = "oneround_masked_sums"
NOISY_SUMS_OF = "oneround_noisy_sums"
"""Query: the same sums over clipped rows with the client's share of noise; the only message of such a run."""
HELD_OUT_OF = "oneround_held_out"
"""Query: how well the head without a row scores that row, summed by class, for each shrinkage."""
MASKED_HELD_OUT_OF = "oneround_masked_held_out"

FIELDS: Mapping[str, tuple[str, ...]] = {
    "ncm": ("squares",),
    "lda": ("second",),
    "qda": ("second", "scatter"),
    "nb": ("by_class",),
    "ridge": ("second",),
    "fed3r": ("second",),
    "fedcof": (),
    "fedcgs": ("second",),
    "fishermix": ("second",),
}
"""What each head reads besides counts and sums; ridge with the uniform prior reads ``weighted`` instead."""
NOISED = ("ncm", "lda", "ridge", "fed3r", "fedcgs")
"""Heads whose sums change by at most sqrt(3) with one row of length 1."""
WITHOUT_PRIOR = ("ncm", "fed3r", "fedcof")
"""Heads whose scores have no scale that the logarithm of a prior could be added to."""
TEMPERED = 8
"""Number of temperatures that rows are scored at with use=init."""


@dataclass(frozen=True)
class OneRoundSettings(Settings):
    """Settings of a head from class statistics.

    Attributes:
        head: lda, ncm, qda, nb, ridge, or as published: fed3r, fedcof, fedcgs, fishermix.
        use: alone: no training; post: replaces the head of the model trained before; init: training starts from it.
        prior: class prior of the scores: uniform, data or deployment; auto: uniform, with use=init data.
        prevalence: deployment: share of each class, in class order; any scale.
        correct_means: lda, ncm, qda: take off what makes the mean of few rows too long.
        metric: ncm: euclidean or cosine.
        shrinkage: of the covariance: loo (leave-one-out), oas, or in [0, 1]; auto: lda loo, qda .1, fishermix .05.
        min_count: rows of all clients together that a class needs to be used.
        min_holders: clients that must have rows of a class; null: 2 between hospitals, else 1.
        secure: the server learns only sums over all clients; false: it sees each client's, with equal results.
        penalty: ridge: times the mean of the diagonal; fed3r: as it is.
        gamma: fedcof: added to class covariances, in the features' squared scale.
        draws: fishermix: drawn rows per class.
        epsilon: differential privacy of one row in all that is sent; null: no noise.
        delta: of that guarantee.
        clip: with epsilon: longer rows are cut to this length.
    """

    method: ClassVar[str] = "oneround"

    head: Head = "lda"
    use: Literal["alone", "post", "init"] = "alone"
    prior: Literal["auto", "uniform", "data", "deployment"] = "auto"
    prevalence: tuple[float, ...] | None = None
    correct_means: bool = True
    metric: Literal["euclidean", "cosine"] = "euclidean"
    shrinkage: Literal["auto", "loo", "oas"] | Annotated[float, Range(0, 1)] = "auto"
    min_count: PositiveCount = 5
    min_holders: Annotated[int | None, Range(1)] = None
    secure: bool = True
    penalty: Positive = 0.01
    gamma: NonNegative = 1.0
    draws: PositiveCount = 4000
    epsilon: Annotated[float | None, Range(0, 100, low_allowed=False)] = None
    delta: Annotated[float, Range(0, 1, low_allowed=False, high_allowed=False)] = 1e-5
    clip: Positive = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        super().__post_init__()
        where = "strategy.oneround"
        if isinstance(self.shrinkage, float):
            self.require("shrinkage", 0, 1)
        if self.head in WITHOUT_PRIOR and self.prior in ("data", "deployment"):
            raise ConfigError(
                f"{where}.prior={self.prior}: the scores of head={self.head} have no scale that a prior could be added "
                "to; use head=lda, or prior=uniform"
            )
        if self.head == "ridge" and self.prior == "deployment":
            raise ConfigError(f"{where}.prior=deployment: head=ridge has the uniform or the data prior; use head=lda")
        if (self.prior == "deployment") != (self.prevalence is not None):
            raise ConfigError(f"{where}: prior=deployment and prevalence belong together: give both, or neither")
        if self.prevalence is not None and not (min(self.prevalence, default=0) > 0):
            raise ConfigError(f"{where}.prevalence={list(self.prevalence)}: give a share above 0 for each class")
        if self.shrinkage in ("loo", "oas") and self.head not in ("lda", "qda", "fishermix"):
            raise ConfigError(f"{where}.shrinkage={self.shrinkage}: head={self.head} shrinks nothing; leave it out")
        if self.shrinkage == "loo" and self.head != "lda":
            raise ConfigError(f"{where}.shrinkage=loo is for head=lda; use oas or a number with head={self.head}")
        if self.head == "fedcof" and self.secure:
            raise ConfigError(
                f"{where}.head=fedcof reads each client's class means, which a secure sum hides: set "
                f"{where}.secure=false, or use head=lda"
            )
        self._check_noise(where)

    def _check_noise(self, where: str) -> None:
        if self.epsilon is None:
            return
        if self.head not in NOISED:
            raise ConfigError(f"{where}.epsilon: give one of head={', '.join(NOISED)}; {self.head} sends more sums")
        if self.resolved_prior == "uniform" and self.head == "ridge":
            raise ConfigError(f"{where}.epsilon: head=ridge with the uniform prior weighs rows; set prior=data")
        if not self.secure:
            raise ConfigError(f"{where}.epsilon: a client's share of the noise hides little alone; set secure=true")
        if self.resolved_shrinkage == "loo":
            raise ConfigError(
                f"{where}.shrinkage=loo asks the clients a second time, which epsilon={self.epsilon:g} does not cover; "
                "set shrinkage=oas, or a number such as 0.5"
            )

    @property
    def resolved_prior(self) -> str:
        """uniform, data or deployment."""
        if self.prior != "auto":
            return self.prior
        return "data" if self.use == "init" and self.head not in WITHOUT_PRIOR else "uniform"

    @property
    def resolved_shrinkage(self) -> str | float:
        """loo, oas or a number."""
        if self.shrinkage != "auto":
            return self.shrinkage
        if self.head == "lda":
            return "oas" if self.epsilon is not None else "loo"
        return {"qda": 0.1, "fishermix": 0.05}.get(self.head, 0.0)

    @property
    def fields(self) -> tuple[str, ...]:
        """What the clients add up besides counts and sums."""
        if self.head == "ridge" and self.resolved_prior == "uniform":
            return ("weighted",)
        return FIELDS[self.head]


def _asked(settings: Mapping[str, Any]) -> OneRoundSettings:
    return OneRoundSettings(**settings)


def in_clear(settings: Mapping[str, Any]) -> bool:
    """Whether a run with these settings sends figures of single clients."""
    return not _asked(settings).secure


def masked(settings: Mapping[str, Any]) -> bool:
    """Whether it sends masked figures without noise."""
    own = _asked(settings)
    return own.secure and own.epsilon is None


def noisy(settings: Mapping[str, Any]) -> bool:
    """Whether it sends sums with noise."""
    return _asked(settings).epsilon is not None


def held_out_in_clear(settings: Mapping[str, Any]) -> bool:
    """Whether it chooses the shrinkage by open sums."""
    return in_clear(settings) and _asked(settings).resolved_shrinkage == "loo"


def held_out_masked(settings: Mapping[str, Any]) -> bool:
    """Whether it chooses the shrinkage by masked sums."""
    return masked(settings) and _asked(settings).resolved_shrinkage == "loo"


def sends_second(settings: Mapping[str, Any]) -> bool:
    """Whether the sums hold a matrix over all rows."""
    return bool({"second", "weighted"} & set(_asked(settings).fields))


def sends_squares(settings: Mapping[str, Any]) -> bool:
    """Whether the sums hold squares by class."""
    return "by_class" in _asked(settings).fields


def sends_scatter(settings: Mapping[str, Any]) -> bool:
    """Whether the sums hold a matrix per class."""
    return "scatter" in _asked(settings).fields


def _in_clear(key: str, content: str, shape: str, values: Mapping[str, Values], optional: bool = False) -> Record:
    return Record(
        key,
        "arrays",
        content,
        "aggregate",
        dtypes=("int64",),
        optional=optional,
        reveals="class_counts",
        about="class",
        shape=shape,
        values=values,
    )


_COUNTS = _in_clear(
    COUNTS,
    "rows per class, whether there are any, and the sum of the features' squared lengths",
    "2 x C + 2",
    {"counts": counts("C"), "holders": Values("C", low=0, high=1, whole=True), "scale": Values("2")},
)
_SUMS = (
    _in_clear(
        SUMS,
        "per class: rows and the sum of their features (of one row: that row); the sum of all squared lengths",
        "C + C x d + 1",
        {"counts": counts("C"), "sums": Values("C x d"), "squares": Values("1", optional=True)},
    ),
    _in_clear(
        SECOND,
        "sum over all rows of their features' products",
        "t",
        {name: Values("t", optional=True) for name in ("second", "weighted")},
        optional=True,
    ),
    _in_clear(SQUARES, "per class: sum of the squared features", "C x d", {"by_class": Values("C x d")}, optional=True),
    _in_clear(
        SCATTER,
        "per class of at least 20 rows in all: sum over its rows of their features' products",
        "C x t",
        {"scatter": Values("C x t")},
        optional=True,
    ),
)
_HELD_OUT = _in_clear(
    HELD_OUT,
    "per class: rows, those that the head without them gets right, and their log loss, for ten shrinkages",
    f"C + 10 x C + {10 * TEMPERED} x C",
    {
        "rows": counts("C"),
        "hits": Values("C x a", low=0, high="rows", whole=True),
        "losses": Values("C x a x T", low=0),
    },
)


def _hidden(record: Record) -> Record:
    """The same record under masks: only the sum over all clients can be read, and a single value may be anything."""
    values = {name: Values(one.shape, optional=one.optional) for name, one in (record.values or {}).items()}
    text = f"{record.content}; masked: only the sum can be read"
    return replace(record, content=text, dtypes=("uint64",), reveals=None, about="masked", values=values)


_NOISY = Record(
    NOISY,
    "arrays",
    "rows per class, sums of their clipped features and of the features' products, with noise; masked: only the noisy "
    "sum can be read",
    "aggregate",
    dtypes=("uint64",),
    about="masked",
    shape="C + C x d + t",
    values={"values": Values("m")},
)

ONEROUND = Contract(
    name="oneround",
    queries={
        COUNTS_OF: (_COUNTS,),
        MASKED_COUNTS_OF: (_hidden(_COUNTS),),
        SUMS_OF: _SUMS,
        MASKED_SUMS_OF: tuple(map(_hidden, _SUMS)),
        NOISY_SUMS_OF: (_NOISY,),
        HELD_OUT_OF: (_HELD_OUT,),
        MASKED_HELD_OUT_OF: (_hidden(_HELD_OUT),),
    },
    often=dict.fromkeys(
        (COUNTS_OF, MASKED_COUNTS_OF, SUMS_OF, MASKED_SUMS_OF, NOISY_SUMS_OF, HELD_OUT_OF, MASKED_HELD_OUT_OF), "once"
    ),
    most=dict.fromkeys(
        (COUNTS_OF, MASKED_COUNTS_OF, SUMS_OF, MASKED_SUMS_OF, NOISY_SUMS_OF, HELD_OUT_OF, MASKED_HELD_OUT_OF), 1
    ),
    replaces=1,
    only={
        COUNTS_OF: in_clear,
        MASKED_COUNTS_OF: masked,
        SUMS_OF: in_clear,
        MASKED_SUMS_OF: masked,
        NOISY_SUMS_OF: noisy,
        HELD_OUT_OF: held_out_in_clear,
        MASKED_HELD_OUT_OF: held_out_masked,
        SECOND: sends_second,
        SQUARES: sends_squares,
        SCATTER: sends_scatter,
    },
)
register("contract", "oneround")(ONEROUND)
