"""Registered data: the data sets a site offers to studies, as fixed versions with cryptographic commitments."""
