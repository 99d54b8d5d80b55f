"""Output of two models compared on the same test rows."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedimb.cli.output.base import Number, Output, Part, Place

if TYPE_CHECKING:
    from fedimb.study.model_pairs import ModelPair, SeedPairs

_MEANS = ("macro", "minority", "overall")


class PairTest(Part):
    """One test of two models; the difference is A - B.

    Attributes:
        seed: seed of both runs; null for a test over the seeds.
        measure: "recall" or "auroc".
        of: a class, or "macro", "minority" or "overall" (all rows).
        is_class: whether ``of`` names a class.
        difference, low, high: the difference and its interval.
        p: two-sided.
        p_holm: the same after Holm over the classes; null for means, which are one test each.
    """

    seed: int | None
    measure: str
    of: str
    is_class: bool
    difference: Number
    low: Number
    high: Number
    p: Number
    p_holm: Number


class Comparison(Part):
    """Two models, or two rows of a study in one setting.

    Attributes:
        subjects: what is compared, and on which rows.
        seeds: the seeds with both models.
        tests: per class and in the mean; of several seeds each by itself and then over them.
        meaning: what came out, in a sentence.
        notes: limitations.
    """

    subjects: dict[str, str]
    seeds: list[int]
    tests: list[PairTest]
    meaning: str
    notes: list[str]


class ModelsCompared(Output):
    """Two models on the same test rows.

    Attributes:
        comparisons: one, or one per setting that two rows of studies share.
    """

    comparisons: list[Comparison]

    @classmethod
    def of_pairs(cls, found: "Sequence[ModelPair | SeedPairs]") -> "ModelsCompared":
        """The output for what `fedimb.cli.paired.find_pairs` found."""
        from fedimb.report.model_pairs import notes, sentence, subjects

        return cls.model_validate(
            {
                "comparisons": [
                    {
                        "subjects": dict(subjects(one)),
                        "seeds": list(_pairs_of(one)),
                        "tests": list(_tests(one)),
                        "meaning": sentence(one),
                        "notes": notes(one),
                    }
                    for one in found
                ]
            }
        )


class ModelsReport(Output):
    """A report on two models.

    Attributes:
        report: the HTML file.
    """

    report: Place


def _pairs_of(found: "ModelPair | SeedPairs") -> "dict[int, ModelPair]":
    from fedimb.study.model_pairs import ModelPair

    return {found.a.seed: found} if isinstance(found, ModelPair) else dict(found.pairs)


def _tests(found: "ModelPair | SeedPairs") -> Iterator[PairTest]:
    from fedimb.study.model_pairs import ModelPair

    for seed, pair in _pairs_of(found).items():
        holm = {"recall": pair.recall_holm, "auroc": pair.auroc_holm}
        for measure, tests in (("recall", pair.recall.classes), ("auroc", pair.auroc)):
            for name, test, p_holm in zip(pair.class_names, tests, holm[measure], strict=True):
                yield _test(seed, measure, name, True, test, test.p, p_holm)
        for name in _MEANS:
            if (test := getattr(pair.recall, name)) is not None:
                yield _test(seed, "recall", name, False, test, test.p, None)
    if isinstance(found, ModelPair):
        return
    names = next(iter(found.pairs.values())).class_names if found.pairs else ()
    for measure, over in (("recall", found.recall), ("auroc", found.auroc)):
        for name, one in zip(names, over, strict=False):
            yield _test(None, measure, name, True, one.test, one.test.p, one.p)
    for name, one in (("macro", found.macro), ("minority", found.minority)):
        yield _test(None, "recall", name, False, one.test, one.p, None)


def _test(
    seed: int | None, measure: str, of: str, is_class: bool, test: object, p: float, p_holm: float | None
) -> PairTest:
    difference = getattr(test, "difference", None)
    return PairTest(
        seed=seed,
        measure=measure,
        of=of,
        is_class=is_class,
        difference=getattr(test, "effect", None) if difference is None else difference,
        low=getattr(test, "low", None),
        high=getattr(test, "high", None),
        p=p,
        p_holm=p_holm,
    )
