"""Methods without a server: every client has a model, and mixes it with those of its neighbours."""
