"""Hydra configuration groups; package data, found as `pkg://fedimb.configs`."""
