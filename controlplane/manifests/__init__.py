"""Manifests of Kubernetes: the control plane's own, and sidecars put into those of others and taken out again."""
