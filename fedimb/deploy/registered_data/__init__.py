"""Registered data: what a site offers to studies, as fixed versions of one list of records, and their commitments."""
