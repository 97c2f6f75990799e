"""The control plane: model, store, identity. Imports meshcore's public API; meshcore never imports it."""
