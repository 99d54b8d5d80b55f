"""Contract checks for your own parts: one line in a test checks that a plug-in keeps the contract of its kind.

```python
from fedimb.testing import check_loss


def test_my_loss():
    check_loss("my_loss", gamma=2.0)
```

Each ``check_<kind>`` takes the name a part is registered under and its settings, builds it as a run does, and raises a
`ContractError` with the broken rule, what was expected and what was found. fedimb's own parts pass the same checks.
Nothing here needs pytest. See docs/testing-plug-ins.md.
"""

from fedimb.testing.aggregators import check_aggregator
from fedimb.testing.attacks import check_attack
from fedimb.testing.data import check_partitioner, check_source
from fedimb.testing.encoders import check_encoder
from fedimb.testing.expectations import ContractError
from fedimb.testing.explanations import check_explanation
from fedimb.testing.generation import check_generator
from fedimb.testing.methods import check_method
from fedimb.testing.paces import check_pace
from fedimb.testing.selection import check_coreset, check_query
from fedimb.testing.training import check_calibration, check_loss, check_model, check_resampler, check_sampler

__all__ = [
    "ContractError",
    "check_aggregator",
    "check_attack",
    "check_calibration",
    "check_coreset",
    "check_encoder",
    "check_explanation",
    "check_generator",
    "check_loss",
    "check_method",
    "check_model",
    "check_pace",
    "check_partitioner",
    "check_query",
    "check_resampler",
    "check_sampler",
    "check_source",
]
