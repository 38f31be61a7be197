"""Weights in, release out: one folder, written once, with one fingerprint over all of its parts."""
