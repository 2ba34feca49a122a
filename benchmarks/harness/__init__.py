"""What every benchmark shares: workers, interleaving, the machine's limits, records."""
