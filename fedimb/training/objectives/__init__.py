"""Local objectives: what an aggregator adds to the local objective or sends along (`fedimb.training.objectives.base`).

One file each; registered as kind `objective`."""
