"""The run folder: how a run was started, what it logged and how it ended. MLflow, tables and resume read it."""
