"""The networks that published results of federated learning use."""
