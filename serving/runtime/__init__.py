"""What a running server holds between calls."""
