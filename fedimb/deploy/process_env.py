"""What every Flower process of a deployment finds, or must not find, in its environment."""

from fedimb.process_env import FLOWER

SWITCHES = FLOWER | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
"""Old code beside what is installed."""
