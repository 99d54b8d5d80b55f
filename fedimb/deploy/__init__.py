"""Real deployments: everything that runs the simulated clients' code on hospital nodes.

Joining, study plans, the site's inbox, the node check and the supervisor live here.

Only this package and `fedimb.engine` touch Flower's internals. A node never imports ray, mlflow or hydra.
"""
