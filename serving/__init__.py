"""The gRPC service over a release, and its client; `recsys` does the work, this package only carries it."""
