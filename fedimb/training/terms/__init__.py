"""Local terms: what an aggregator adds to the local objective or sends along (`fedimb.training.terms.base`).

One file each; registered as kind `term`."""
