"""The services that proxies and operators call, each in a file of its own, over gRPC."""
