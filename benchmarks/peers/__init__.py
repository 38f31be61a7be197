"""Peers in processes of their own: what the training benchmark times at equal sizes, and who ranks on our split."""
