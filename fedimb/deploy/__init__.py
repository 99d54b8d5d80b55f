"""Deployment: joining, plans, inbox, node check, supervisor. What turns the simulated clients into hospital nodes.

Only `fedimb.engine` and this package touch Flower's internals. A node imports no ray, mlflow or hydra.
"""
