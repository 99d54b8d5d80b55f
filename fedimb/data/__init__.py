"""Sources -> long tail -> partition -> views.

Arrays go in once, index lists come out; a client's data is a list of rows of one memory-mapped store."""
