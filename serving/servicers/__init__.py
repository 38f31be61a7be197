"""Convert, call, convert: one file a service."""
