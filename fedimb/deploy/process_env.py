"""What every Flower process of a deployment finds, or must not find, in its environment. Source: Flower 1.41."""

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONSAFEPATH": "1",
}
DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
"""Old code beside what is installed."""
