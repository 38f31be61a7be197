"""Generated from `proto/serving/v1` by `make proto`; do not edit, the tests compare it with a fresh copy."""
