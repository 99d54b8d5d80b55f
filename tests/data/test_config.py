import pytest

from fedimb.data.config import DataConfig, partition_parts
from fedimb.data.placement import Placement
from fedimb.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"imbalance_facto": 3}, "no setting 'data.imbalance_facto'. Did you mean 'data.imbalance_factor'"),
        ({"source": "digits"}, "data.source='digits': give a name"),
        ({"source": {"rows": 3}}, "data.source"),
        ({"test": None}, "data.test=None"),
        ({"test": {"name": "balanced", "per_class": 1.5}}, "per_class=1.5"),
        ({"validation": 1.0}, "data.validation=1.0"),
        ({"validation": True}, "data.validation=True"),
        ({"long_tail": "steps"}, "Did you mean 'step'"),
        ({"imbalance_factor": 0.5}, "data.imbalance_factor=0.5"),
        ({"n_max": 3.5}, "data.n_max=3.5"),
        ({"n_max": 0}, "data.n_max=0"),
        ({"class_order": "random"}, "no order 'random'"),
    ],
)
def test_wrong_settings_name_the_key_and_the_remedy(digits, change, says):
    with pytest.raises(ConfigError, match=says):
        DataConfig.parse({**digits, **change})


def test_shipped_groups_are_valid(digits, table, dirichlet):
    assert DataConfig.parse(digits).n_max == 110
    assert DataConfig.parse(table).source["rows"] == 10_000
    assert partition_parts(dirichlet) == ("dirichlet", {"alpha": 0.5, "rounding": "largest_remainder"})
    assert Placement.split(dirichlet)[0] == Placement(None, 0.2)


def test_a_partition_needs_a_name():
    with pytest.raises(ConfigError, match="partition needs a name"):
        partition_parts({"alpha": 0.5})
