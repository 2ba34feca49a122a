"""Model files with random weights of the right shape and bits, for each engine."""
