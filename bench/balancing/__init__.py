"""Three balancers and one endpoint that turns slow: `python -m bench.balancing --help`."""
