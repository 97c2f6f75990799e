"""The binder: from what names are bound to, to what the engine is told."""
