"""The engine's rooms: header-only Cython (`*.pxd`), one concept each. Nothing here is imported at run time."""
