"""From raw tables to what training and evaluation read: rows, codes, parts, batches."""
