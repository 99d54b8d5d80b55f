"""Sources -> long tail -> partition -> views.

A source is decoded once into a memory-mapped store; each client's data is a list of row indices into it."""
