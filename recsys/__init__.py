"""Two-tower recommendation and retrieval, from interactions to an answered call."""
