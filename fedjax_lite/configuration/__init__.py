"""Build a run from a TOML file; each section of the TOML file has a module here."""
