"""A page on this machine to look at a release with: pick, mark, and watch the list change."""
