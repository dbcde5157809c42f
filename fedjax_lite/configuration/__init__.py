"""From a TOML file to a run: a file for each of its sections."""
