from dataclasses import replace

import pytest
import torch

from fedimb.selection.queries.base import ModelOutputs, QueryRule
from fedimb.selection.queries.entropy import Entropy
from fedimb.selection.queries.random import Random


class Peeks(QueryRule):
    models = frozenset({"global"})

    def choose(self, asked):
        asked.notes["budget"] = float(asked.budget)
        assert asked.hidden is None
        return torch.arange(asked.budget)


def test_a_rule_gets_a_checked_question_and_its_notes_reach_the_caller(client):
    asked = client([3, 2], [1, 1], 99)
    assert asked.hidden is not None
    assert Peeks().select(asked).tolist() == [0, 1, 2, 3, 4]
    assert asked.notes == {"budget": 5.0}
    assert Peeks().reads("local") == {"global"}
    assert Entropy().reads("local") == {"local"}
    with pytest.raises(NotImplementedError, match="QueryRule must implement choose"):
        QueryRule().select(asked)


def test_what_does_not_fit_together_is_refused(client):
    asked = client([3, 2], [1, 1], 2)
    with pytest.raises(ValueError, match="budget of at least 0 and a pool; got -1"):
        Random().select(replace(asked, budget=-1))
    with pytest.raises(ValueError, match=r"a pool; got 2, \[\]"):
        Entropy().select(replace(asked, pool={}))
    with pytest.raises(ValueError, match=r"pool rows as the local model sees them; got \['global'\]"):
        Entropy().select(replace(asked, which="local", pool={"global": asked.pool["global"]}))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1; got \[0, 2\]"):
        Random().select(replace(asked, labels=torch.tensor([0, 2])))
    short = {"global": ModelOutputs(asked.labelled["global"].features[:1], asked.labelled["global"].logits)}
    with pytest.raises(ValueError, match=r"labelled rows, global model: features \(1, 8\), logits \(2, 2\) for 2 rows"):
        Entropy().select(replace(asked, labelled=short))
    with pytest.raises(ValueError, match="C=3"):
        Entropy().select(replace(asked, n_classes=3))
