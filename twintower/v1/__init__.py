"""Generated from `proto/twintower/v1` by `make proto`; do not edit, the tests compare it with a fresh copy."""
