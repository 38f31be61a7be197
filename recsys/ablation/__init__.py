"""What is each part of the second task worth on a run's own data: tuned rows, several seeds, paired intervals."""
