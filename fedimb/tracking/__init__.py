"""Sends run folders to MLflow; sending again creates no duplicates."""
