"""From arms to a decision: who is in which experiment, what was shown and what came of it, and what follows from that.

`plan` is the experiment file, `assignment` decides arms, `slates` and `interleaving` make lists whose probabilities are
known, `log` is what serving writes: all of these are light enough for a server. `units` reduces a log to a table with
one row a unit; `effects`, `sequential`, `quantiles` and `power` compare arms in it, `analysis` puts them together;
`off_policy` values a policy that was never shown; `ledger` remembers how well offline metrics predicted.
"""
