"""What the server showed to whom, and what came of it."""
