"""none: nobody attacks."""

from fedimb.attacks.base import Attack, AttackSettings, Known
from fedimb.registry import register


@register("attack", "none", unknown_labels=("cells", "coarse"))
class NoAttack(Attack):
    """Nobody attacks; nothing is drawn, sent or computed for it."""

    def __init__(self, known: Known) -> None:
        super().__init__(AttackSettings(), known)
