"""MLflow, as a projection of the run folder: it can be re-sent without duplicates."""
