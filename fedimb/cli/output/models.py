"""Output of two models compared on the same test rows."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedimb.cli.output.base import Number, Output, Part, Place

if TYPE_CHECKING:
    from fedimb.evaluation.delong import AurocTest
    from fedimb.evaluation.paired_recall import RecallTest
    from fedimb.study.model_pairs import ModelPair, SeedPairs


class PairTest(Part):
    """One test of two models; the difference is A - B.

    Attributes:
        seed: seed of both runs; null for a test over the seeds.
        measure: "recall" or "auroc".
        about: a class, or "macro", "minority" or "overall" (all rows).
        is_class: whether ``about`` names a class.
        difference, low, high: the difference and its interval.
        p: two-sided.
        p_holm: the same after Holm over the classes; null for means, which are one test each.
    """

    seed: int | None
    measure: str
    about: str
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
        yield from _tests_of(pair, seed)
    if isinstance(found, ModelPair):
        return
    names = next(iter(found.pairs.values())).class_names if found.pairs else ()
    tests = [("recall", name, True, one) for name, one in zip(names, found.recall, strict=False)]
    tests += [("auroc", name, True, one) for name, one in zip(names, found.auroc, strict=False)]
    tests += [("recall", "macro", False, found.macro), ("recall", "minority", False, found.minority)]
    for measure, about, is_class, one in tests:
        yield PairTest(
            seed=None,
            measure=measure,
            about=about,
            is_class=is_class,
            difference=one.test.effect,
            low=one.test.low,
            high=one.test.high,
            p=one.test.p,
            p_holm=one.p if is_class else None,
        )


def _tests_of(pair: "ModelPair", seed: int) -> Iterator[PairTest]:
    def record(measure: str, about: str, test: "RecallTest | AurocTest", p_holm: float | None) -> PairTest:
        return PairTest(
            seed=seed,
            measure=measure,
            about=about,
            is_class=p_holm is not None,
            difference=test.difference,
            low=test.low,
            high=test.high,
            p=test.p,
            p_holm=p_holm,
        )

    for name, recall, p_holm in zip(pair.class_names, pair.recall.classes, pair.recall_holm, strict=True):
        yield record("recall", name, recall, p_holm)
    for name, auroc, p_holm in zip(pair.class_names, pair.auroc, pair.auroc_holm, strict=True):
        yield record("auroc", name, auroc, p_holm)
    means = {"macro": pair.recall.macro, "minority": pair.recall.minority, "overall": pair.recall.overall}
    for name, mean in means.items():
        if mean is not None:
            yield record("recall", name, mean, None)
