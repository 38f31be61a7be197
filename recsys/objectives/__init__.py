"""Objectives are numbers to minimise; one file is one `[objective] kind`.

A choice has one verb, `loss`, a pure function of tensors. To add one, write `objectives/<kind>.py`; the contract tests
check its gradient against finite differences and that eager and graph agree.
"""
