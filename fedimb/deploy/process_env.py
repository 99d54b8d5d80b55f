"""Environment variables that every Flower process of a deployment gets, or must not inherit."""

from fedimb.process_env import FLOWER

PROCESS_ENV = FLOWER | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
DROPPED_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
"""They would import other code than what is installed."""
