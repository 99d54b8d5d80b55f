"""What every run's clients send, whatever the method."""

from fedimb.contracts.base import Contract, Record, Values, counts
from fedimb.registry import register

ARRAYS = "arrays"
METRICS = "metrics"
WEIGHT = "num-examples"
"""Metric of a train reply: the client's weight in a mean."""
BUFFERS = "x.buffers"
CONFUSION = "x.confusion"
COUNTS = "x.counts"
PRIOR = "x.prior"
STEP = "x.fedimb"
STATE = "x.state"
KIND = "kind"
"""In the step record of a run whose clients train different networks: the kind that this client trains."""
RARE, COMMON = "attack-rare", "attack-common"
"""In the step record of a simulated client that attacks in this message: the minority classes, the largest class."""

SCORES = "x.scores"
SUBGROUPS = "x.subgroups"
"""Of a run with ``data.subgroups``: counts by attribute, class and group (`fedimb.evaluation.subgroups`)."""
SCORED = "scored"
"""Query: the final model's confusion matrices on the client's validation rows, where the server has no test rows."""
MASKED_SCORES = "masked_scores"
"""As `SCORED`, masked with masks shared by the clients that the config record lists: uint64, modulo 2**64."""

LOSSES = "x.losses"
MASKED_LOSSES = "masked_losses"
"""Query: log loss of the received model on the client's validation rows at 37 temperatures, summed over them in units
of 2**-20 nats (`fedimb.evaluation.temperature`) and masked as `MASKED_SCORES`."""
EXPLAIN = "explain"
"""Query: explain the received model on the client's rows, as ``explanation`` of the configuration says."""
EXPLAINED = "x.explained"
EXPLAINED_OVERALL = "x.explained_overall"
TAUS = "x.taus"
"""Sent with `SCORED` and `MASKED_SCORES`: the numbers found for calibrations whose tau is a rule, by calibration."""

SHARES = "x.shares"
"""With masked figures: what the other sites need to open their sum; in a message to a site, the shares for it."""
SUM = "x.sum"
"""Sent to hospital nodes to open a masked sum: the request's digest, the clients asked, and those in the sum."""
AGREED = "x.agreed"
"""A site's signature of the set of sites in a masked sum; in a message to a site, all signatures, by client id."""
OPENED = "x.opened"
SUM_AGREE = "sum_agree"
"""Query: sign the set of sites that a masked sum is over, before it is opened (`fedimb.privacy.recoverable_sum`)."""
SUM_OPEN = "sum_open"
"""Query: with the signatures of enough sites, reveal the shares that open this one sum."""

PART = "train/part"
"""Metric of every round from the second part of a training on: how many ended before it. In a part the same weights are
trained on the same rows: a phase, a stage, a labelling cycle, what follows a warm-up, new labels, or weights that the
server replaced or drew anew (`fedimb.serverapp.context.RunContext.next_part`). No mean is over two parts."""
EARLIER_PARTS = ("data/phase", "data/stage", "data/cycle")
"""Metrics whose change says that a part begins in runs of versions that did not know `PART`."""
SERVER_STEPS = "server/steps"
"""Metric of every round from the first on before which the server trained: its optimiser steps so far, on the model, on
heads, on features that a head is fitted to or on prototypes. Not among them are clients' steps, those of generators and
those of a calibration (`calibration=fednpc`), which are taken anew for every score and change no training."""
REPLACED = "model/replaced"
"""Metric of a round in which the server replaced the model's weights (`fedimb.serverapp.steps.Replace`)."""

AUDIT = "x.audit"
ORDER = "x.order"
"""Sent to hospital nodes with every message: its id and the coordinator's signature (`fedimb.deploy.signing`)."""
SIGNATURE = "x.signature"

RUN = "x.run"
CLIENT = "x.client"

PAIRS = "x.pairs"
"""Sent to hospital nodes with each request for masked figures: every site's public key (hex), by client id."""

SITE = "x.site"
SUMS = "x.sums"
INPUTS = "x.inputs"
MOST_NAMES = 1 << 16
"""Characters of the names in `INPUTS`; of longer ones the hash is sent."""
SCALING = "x.scaling"
"""Sent to hospital nodes with every message: mean and deviation [F] float32 of a table's columns over all sites."""

JOIN_SITE = "join_site"
"""Query: tells a hospital node about the run (study plan, configuration, which client it is); it joins or declines."""
JOIN = "join"
"""Query of engine=flower: the node learns where the simulated run is, and replies which client it simulates."""

CLASS_COUNTS = "class_counts"
"""Query: the client's class counts [C] int64 in the view named by the content's config record."""
MASKED_COUNTS = "masked_counts"
"""As `CLASS_COUNTS`, masked with masks shared by the clients that the config record lists: uint64, modulo 2**64."""
NOISY_COUNTS = "noisy_counts"
"""As `MASKED_COUNTS`, with the client's share of noise, in fixed point."""

_VERSION = Record(
    STATE,
    "config",
    "version of the state kept at the client",
    "operational",
    max_bytes=64,
    optional=True,
    values={"version": Values(low=0, high=2**62, whole=True)},
)

_METRICS = {
    WEIGHT: Values(low=0, high="weight"),
    "train_loss": Values(missing=True, optional=True),
    "start_loss": Values(optional=True),
    "steps": Values(low=0, high="steps", whole=True, optional=True),
    "examples": Values(low=0, missing=True, optional=True),
    "seconds": Values(low=0, optional=True),
    "update_norm": Values(low=0, missing=True, optional=True),
    "*": Values(missing=True, optional=True),
}
"""The loss of a client without a step is NaN, one that diverged may be infinite: neither is used."""

_TEXT = r"[\x20-\x7e]{0,120}"

_CELLS, _BINNED = "A x C x G", "A x C x G x B"
_SUBGROUPS = {
    "rows": counts(_CELLS, "validation"),
    "people": counts(_CELLS, "validation"),
    "together": Values("A x A x G x G", low=0, high=1, whole=True),
    "*/hits": Values(_BINNED, low=0, high="validation", whole=True),
    "*/confidence": Values(_BINNED, low=0, high="confidence", whole=True),
    "*/squares": Values(_CELLS, low=0, high="squares", total="squares", whole=True),
}
_MASKED_SUBGROUPS = {name: Values(one.shape) for name, one in _SUBGROUPS.items()}
_OF_SUBGROUPS = (
    "of the final model on the validation view, by attribute of data.subgroups, class and group: rows, patients, and "
    "per calibration correct predictions and confidence by bin and squared errors; and which groups occur together"
)

_SHARES = Record(
    SHARES,
    "arrays",
    "of the masks of this one sum: commitments, and shares encrypted for the other sites, so that the sum can be "
    "opened if a site is missing (from four sites on)",
    "operational",
    dtypes=("uint8",),
    optional=True,
    about="masked",
    shape="32 x D x D + 48 x D + 32",
    values={"request": Values("32"), "commitments": Values("K x 32"), "to/*": Values("S")},
)

_OF_A_CLASS = Values("C x G or C x H x W", low=0, high=1)
EXPLAINED_RECORD = Record(
    EXPLAINED,
    "arrays",
    "why the final model says what it says, by class over at least `floor` people of it: rows explained, and the mean "
    "share of each input in the explanation, or how many rows change class and by which mean change of which columns",
    "aggregate",
    dtypes=("int64", "float32"),
    optional=True,
    reveals="class_counts",
    about="class",
    values={
        "*/rows": counts("C"),
        "*/maps": _OF_A_CLASS,
        "*/found": counts("C"),
        "*/flipped": counts("C"),
        "*/changed": Values("C x G", low=0, high=1),
        "*/amount": Values("C x G", low=0),
        "*/distance": Values("C", low=0),
    },
)
EXPLAINED_OVERALL_RECORD = Record(
    EXPLAINED_OVERALL,
    "arrays",
    "of explanations over all rows of at least `floor` people: a sanity check's figures for models with random "
    "weights; a small tree of rules that imitates the model, thresholds on a grid, leaves of at least `floor` people",
    "aggregate",
    dtypes=("int64", "float32"),
    max_bytes=1 << 18,
    optional=True,
    values={
        "*/evidence": Values(low=-1, high=1),
        "*/correlation": Values("1", low=-1, high=1),
        "*/feature": Values("N", low=-1, whole=True),
        "*/threshold": Values("N"),
        "*/left": Values("N", low=-1, whole=True),
        "*/right": Values("N", low=-1, whole=True),
        "*/leaf_rows": counts("N"),
        "*/leaf_class": Values("N", low=-1, high="C-1", whole=True),
        "*/fidelity": Values("3", low=0, whole=True),
    },
)

PLATFORM = Contract(
    name="platform",
    train=(
        Record(
            ARRAYS,
            "arrays",
            "trainable weights after local training",
            "model",
            values={"*": Values(sent="value")},
        ),
        Record(
            METRICS,
            "metrics",
            "training loss, rows used, steps, seconds",
            "operational",
            max_bytes=4096,
            values=_METRICS,
        ),
        Record(
            BUFFERS,
            "arrays",
            "the model's buffers (BatchNorm statistics)",
            "model",
            optional=True,
            values={
                "*running_var": Values(sent="value", low=0),
                "*num_batches_tracked": Values(sent="value", low=0),
                "*": Values(sent="value"),
            },
        ),
        Record(
            CONFUSION,
            "arrays",
            "integer confusion matrix of the received model on the validation view",
            "aggregate",
            dtypes=("int64",),
            optional=True,
            reveals="class_counts",
            about="class",
            shape="C x C or C x 2 x 2",
            values={"matrix": counts("C x C or C x 2 x 2", "validation")},
        ),
        _VERSION,
    ),
    queries={
        JOIN_SITE: (
            Record(
                SITE,
                "config",
                "the site's name, rows to train and to validate on, and left out of classes it does not annotate, "
                "hash of the data's version, scale of its numbers, sampling rate of its signals, "
                "public key for masks between sites, signed, release and hash of its code",
                "operational",
                max_bytes=768,
                values={
                    "site": Values(text=r"[a-z0-9-]{1,40}"),
                    "rows": Values(low=1, high="rows", whole=True),
                    "validation": Values(low=0, high="rows", whole=True),
                    "left_out": Values(low=0, high="rows", whole=True, optional=True),
                    "version": Values(text=r"[\w.:-]{1,80}"),
                    "scale": Values(low=1e-12, high=1e12),
                    "rate": Values(low=0, high=1e12, optional=True),
                    "key": Values(text=r"[0-9a-f]{64}:[A-Za-z0-9+/=]{80,160}"),
                    "code": Values(text=_TEXT),
                },
            ),
            Record(
                INPUTS,
                "config",
                "names of a table's columns or of a signal's channels, in their order, what made embeddings, and the "
                "settings that change values as they are read (clahe, mode, transform, zscore, l2_normalise); so that "
                "all sites mean the same by them",
                "operational",
                max_bytes=MOST_NAMES + 256,
                optional=True,
                values={"names": Values(text=r"[\x20-\x7e]*")},
            ),
            Record(
                SUMS,
                "arrays",
                "of a table, per column (of signals, per channel): values present, their sum and sum of squares, so "
                "that all sites scale alike",
                "aggregate",
                dtypes=("float64", "bool"),
                optional=True,
                values={"sums": Values("3 x F"), "scaled": Values("F")},
            ),
        ),
        JOIN: (
            Record(
                CLIENT,
                "config",
                "the client this simulated node plays",
                "operational",
                max_bytes=64,
                values={"client": Values(low=0, whole=True)},
            ),
        ),
        SCORED: (
            Record(
                SCORES,
                "arrays",
                "integer confusion matrix of the final model on the validation view, one per calibration",
                "aggregate",
                dtypes=("int64",),
                reveals="class_counts",
                about="class",
                shape="C x C",
                values={"*": counts("C x C", "validation")},
            ),
            Record(
                SUBGROUPS,
                "arrays",
                _OF_SUBGROUPS,
                "aggregate",
                dtypes=("int64",),
                optional=True,
                reveals="class_counts",
                about="class",
                values=_SUBGROUPS,
            ),
            _VERSION,
        ),
        MASKED_SCORES: (
            Record(
                SCORES,
                "arrays",
                "confusion matrix of the final model on the validation view, one per calibration, masked: only the sum "
                "can be read",
                "aggregate",
                dtypes=("uint64",),
                about="masked",
                shape="C x C",
                values={"*": Values("C x C")},
            ),
            Record(
                SUBGROUPS,
                "arrays",
                f"{_OF_SUBGROUPS}; masked: only the sum can be read",
                "aggregate",
                dtypes=("uint64",),
                optional=True,
                about="masked",
                values=_MASKED_SUBGROUPS,
            ),
            _SHARES,
            _VERSION,
        ),
        MASKED_LOSSES: (
            Record(
                LOSSES,
                "arrays",
                "log loss of the final model on the validation view at 37 temperatures, summed over its rows, masked: "
                "only the sum can be read",
                "aggregate",
                dtypes=("uint64",),
                about="masked",
                shape="37",
                values={"sums": Values("37")},
            ),
            _SHARES,
            _VERSION,
        ),
        EXPLAIN: (EXPLAINED_RECORD, EXPLAINED_OVERALL_RECORD, _VERSION),
        CLASS_COUNTS: (
            Record(
                COUNTS,
                "arrays",
                "rows per class",
                "aggregate",
                dtypes=("int64",),
                reveals="class_counts",
                about="class",
                shape="C",
                values={"counts": Values("C", low=0, high="rows", total="labels", whole=True)},
            ),
            _VERSION,
        ),
        MASKED_COUNTS: (
            Record(
                COUNTS,
                "arrays",
                "rows per class, masked: only the sum can be read",
                "aggregate",
                dtypes=("uint64",),
                about="masked",
                shape="C",
                values={"counts": Values("C")},
            ),
            _SHARES,
            _VERSION,
        ),
        NOISY_COUNTS: (
            Record(
                COUNTS,
                "arrays",
                "rows per class with noise, masked: only the noisy sum can be read",
                "aggregate",
                dtypes=("uint64",),
                about="masked",
                shape="C",
                values={"counts": Values("C")},
            ),
            _SHARES,
            _VERSION,
        ),
        SUM_AGREE: (
            Record(
                AGREED,
                "config",
                "the site's signature of the list of sites whose masked figures are added up, before they are",
                "operational",
                max_bytes=256,
                values={"signature": Values(text=r"[A-Za-z0-9+/=]{80,160}")},
            ),
        ),
        SUM_OPEN: (
            Record(
                OPENED,
                "arrays",
                "shares of the masks of this one sum, for the sites in it: only their sum can be read",
                "operational",
                dtypes=("uint8",),
                about="masked",
                shape="32 x D x D",
                values={"from/*": Values("R x 32")},
            ),
        ),
    },
    often={
        **dict.fromkeys((JOIN, CLASS_COUNTS, MASKED_COUNTS, NOISY_COUNTS), "once, before training"),
        JOIN_SITE: "once, again when the run is resumed",
        **dict.fromkeys((SCORED, MASKED_SCORES, MASKED_LOSSES, EXPLAIN), "once, after training"),
        **dict.fromkeys((SUM_AGREE, SUM_OPEN), "once for each masked sum"),
    },
    most={
        **dict.fromkeys((JOIN_SITE, JOIN, CLASS_COUNTS, MASKED_COUNTS, NOISY_COUNTS), 1),
        **dict.fromkeys((SCORED, MASKED_SCORES, MASKED_LOSSES, EXPLAIN), 1),
        **dict.fromkeys((SUM_AGREE, SUM_OPEN), 3),  # counts, scores and losses
    },
)
register("contract", "platform")(PLATFORM)

AUDIT_HEAD = Record(
    AUDIT,
    "config",
    "number and hash of the line about this message in the site's audit log",
    "operational",
    max_bytes=72,
    values={"line": Values(low=0, high=2**62, whole=True), "sha": Values(text=r"[0-9a-f]{64}")},
)
"""Added by a hospital node to every reply that is not an error, after the egress filter; absent in simulation."""

SITE_SIGNATURE = Record(
    SIGNATURE, "config", "the site's signature of this reply, with its key in the plan", "operational", max_bytes=160
)
"""Added by a hospital node to every reply, last; absent in simulation."""
