"""Binds names for a proxy: by a table and namers of this process, or by a namerd. `import meshcore` does not import it."""
