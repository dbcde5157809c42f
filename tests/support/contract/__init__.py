"""What keeps the contract: every aggregator, client work, uplink and algorithm. A new one is tested by adding its line to a list."""
