"""FairFAL and its dissection: quota_random, quota_entropy, oracle_balanced."""

from dataclasses import replace

import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.selection.gradient_embeddings import gradient_embeddings
from fedimb.selection.prototypes import class_prototypes, pseudo_labels
from fedimb.selection.queries.base import ModelOutputs
from fedimb.selection.queries.centres import k_center
from fedimb.selection.queries.entropy import Entropy
from fedimb.selection.queries.fairfal import FairFAL
from fedimb.selection.queries.oracle_balanced import OracleBalanced
from fedimb.selection.queries.quota_entropy import QuotaEntropy
from fedimb.selection.queries.quota_random import QuotaRandom
from fedimb.selection.quota import class_quota
from fedimb.selection.uncertainty import normalised_entropy

TAIL = ([120, 50, 20, 8], [12, 6, 3, 2], 24)


def buckets(asked):
    prototypes = class_prototypes(asked.labelled["global"].features, asked.labels, asked.n_classes)
    return pseudo_labels(asked.pool["global"].features, prototypes)


def unevenness(asked, positions):
    """Total variation distance of the queried classes from equal shares."""
    share = asked.hidden[positions].bincount(minlength=asked.n_classes) / len(positions)
    return float((share - 1 / asked.n_classes).abs().sum() / 2)


@pytest.mark.parametrize("seed", range(4))
def test_queried_classes_are_closer_to_uniform_than_entropys(seed, client):
    asked = client([300, 100, 30, 12], [20, 8, 4, 2], 40, seed=seed)
    fair, plain = (unevenness(asked, rule.select(asked)) for rule in (FairFAL(), Entropy()))
    assert fair < plain - 0.1
    assert unevenness(asked, OracleBalanced().select(asked)) <= fair


@pytest.mark.parametrize("rule", [FairFAL(), QuotaRandom(), QuotaEntropy()])
def test_buckets_and_quota_are_noted_and_kept(rule, client):
    asked = client(*TAIL)
    positions, bucket = rule.select(asked), buckets(asked)
    sizes = bucket.bincount(minlength=4)
    assert torch.equal(asked.notes["bucket"], sizes)
    assert torch.equal(asked.notes["quota"], class_quota(sizes, 24))
    assert torch.equal(bucket[positions].bincount(minlength=4), asked.notes["quota"])


@pytest.mark.parametrize("which", ["global", "local"])
def test_quota_entropy_takes_the_unsurest_of_each_bucket_by_the_model_asked(which, client):
    asked = client(*TAIL, which=which)
    positions, bucket, entropy = (
        QuotaEntropy().select(asked),
        buckets(asked),
        normalised_entropy(asked.pool[which].logits),
    )
    for label in range(4):
        inside = positions[bucket[positions] == label]
        rest = torch.tensor([i for i in (bucket == label).nonzero().flatten().tolist() if i not in inside.tolist()])
        assert len(rest) == 0 or entropy[inside].min() >= entropy[rest].max()
    assert set(FairFAL(kappa=1).select(asked).tolist()) == set(positions.tolist())  # no second stage


def test_both_stages_by_hand(client):
    asked = client(*TAIL, which="local")
    bucket, entropy = buckets(asked), normalised_entropy(asked.pool["local"].logits)
    wanted = []
    for label, count in enumerate(class_quota(bucket.bincount(minlength=4), 24).tolist()):
        rows = sorted((bucket == label).nonzero().flatten().tolist(), key=lambda i: -entropy[i])[: int(2.5 * count)]
        seen, same = asked.pool["global"], asked.labels == label
        known = asked.labelled["global"]
        anchors = gradient_embeddings(known.features[same], known.logits[same], asked.labels[same])
        chosen = k_center(gradient_embeddings(seen.features[rows], seen.logits[rows]), count, anchors)
        wanted += [rows[i] for i in chosen]
    assert FairFAL(kappa=2.5).select(asked).tolist() == wanted


def test_embeddings_of_the_paper_and_of_the_code_differ_from_gamma_one_half(client):
    def chosen(model, gamma):
        return FairFAL(embedding_model=model).select(client(*TAIL, gamma=gamma)).tolist()

    assert chosen("code", 0.49) == chosen("paper", 0.49) == chosen("paper", 0.5)
    assert chosen("code", 0.5) != chosen("paper", 0.5)
    assert FairFAL().reads("global") == {"global"}
    assert FairFAL(embedding_model="code").reads("global") == {"global", "local"}
    with pytest.raises(ValueError, match="needs gamma"):
        FairFAL(embedding_model="code").select(client(*TAIL, gamma=None))


def test_a_class_without_labels_is_reached_by_shared_prototypes_alone(client):
    counts, labelled = [80, 30, 12], [9, 4, 0]
    own, asked = client(counts, labelled, 12), client(counts, labelled, 12)
    everyone = client(counts, [9, 4, 5], 12)
    shared = class_prototypes(everyone.labelled["global"].features, everyone.labels, 3)
    for rule in (FairFAL(), QuotaRandom(), QuotaEntropy()):
        rule.select(own)
        assert own.notes["quota"].tolist() == [6, 6, 0]
        positions = rule.select(with_shared := replace(asked, prototypes=shared))
        assert with_shared.notes["quota"].tolist() == [4, 4, 4]
        assert (with_shared.hidden[positions] == 2).sum() >= 2
    bucket, entropy = (
        pseudo_labels(asked.pool["global"].features, shared),
        normalised_entropy(asked.pool["global"].logits),
    )
    third = FairFAL().select(replace(asked, prototypes=shared))[8:]
    assert int(third[0]) == max((bucket == 2).nonzero().flatten().tolist(), key=lambda i: entropy[i])  # no anchors


def test_fewer_rows_than_classes_go_where_the_policy_says(client):
    case = ([90, 30, 10, 6], [9, 5, 2, 1], 2)
    for rule in (FairFAL, QuotaRandom, QuotaEntropy, OracleBalanced):
        notes = {}
        for leftover in ("largest", "rarest_labelled_first"):
            rule(leftover=leftover).select(asked := client(*case))
            notes[leftover] = asked.notes["quota"].tolist()
        assert notes == {"largest": [1, 1, 0, 0], "rarest_labelled_first": [0, 0, 1, 1]}


def test_without_any_label_the_pool_is_one_bucket(client):
    asked = client([30, 5, 2], [0, 0, 0], 6)
    entropy = normalised_entropy(asked.pool["global"].logits)
    positions = FairFAL().select(asked)
    assert asked.notes["quota"].tolist() == [6, 0, 0]
    assert int(positions[0]) == int(entropy.argmax())
    assert set(positions.tolist()) <= set(entropy.argsort(descending=True)[:24].tolist())
    assert set(QuotaEntropy().select(asked).tolist()) == set(entropy.argsort(descending=True)[:6].tolist())


def test_oracle_balanced_gives_equal_true_shares_at_random(client):
    asked = client([60, 20, 6, 2], [4, 2, 1, 1], 16)
    drawn = [OracleBalanced().select(client([60, 20, 6, 2], [4, 2, 1, 1], 16, draw=s)) for s in range(5)]
    for positions in drawn:
        assert asked.hidden[positions].bincount(minlength=4).tolist() == [5, 5, 4, 2]
    assert len({tuple(sorted(d.tolist())) for d in drawn}) == 5


def test_quota_random_draws_anew(client):
    drawn = {tuple(sorted(QuotaRandom().select(client(*TAIL, draw=s)).tolist())) for s in range(5)}
    assert len(drawn) == 5


def test_bad_arguments(client):
    with pytest.raises(ConfigError, match=r"kappa=0\.5: give a finite number of at least 1"):
        FairFAL(kappa=0.5)
    with pytest.raises(ConfigError, match="delta=2"):
        FairFAL(delta=2)
    with pytest.raises(ConfigError, match=r"embedding_model='papr'\. Did you mean 'paper'"):
        FairFAL(embedding_model="papr")
    for rule in (FairFAL, QuotaRandom, QuotaEntropy, OracleBalanced):
        with pytest.raises(ConfigError, match=r"leftover='larges'\. Did you mean 'largest'"):
            rule(leftover="larges")
    with pytest.raises(ValueError, match=r"shared prototypes \(4, 3\) do not match the features: give \(4, 8\)"):
        FairFAL().select(client(*TAIL, prototypes=torch.zeros(4, 3)))


def test_pseudo_classes_come_from_the_global_model_whatever_is_asked(client):
    asked = client(*TAIL, which="local")
    other = ModelOutputs(asked.pool["local"].features.flip(0), asked.pool["local"].logits)
    moved = replace(asked, pool={"global": asked.pool["global"], "local": other})
    assert torch.equal(FairFAL().select(asked), FairFAL().select(moved))
