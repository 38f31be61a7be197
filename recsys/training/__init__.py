"""Fit the two towers: the model, its seeds, and the loop with checkpoints, exact resume and early stopping."""
