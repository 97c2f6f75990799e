"""HTTP/2 conformance: the catalogue, the steps of each case, their runner. See README.md."""
