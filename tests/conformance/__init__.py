"""HTTP/1 conformance: the catalogue, its runner, its claims. See README.md."""
