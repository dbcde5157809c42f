"""Methods of one global model: other local steps, other means, another step of the server."""
