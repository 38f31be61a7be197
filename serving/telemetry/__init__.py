"""What a server tells of itself while it runs: log lines, metrics, spans, and the recall of its searches."""
