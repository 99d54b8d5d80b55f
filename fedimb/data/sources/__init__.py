"""Data sources: each returns arrays, labels and class names (`fedimb.data.store.SourceData`).

One file each; registered as kind `source`."""
