"""The run folder: what a run was started with, what it logged, what it ended in. MLflow, tables and resume read it."""
