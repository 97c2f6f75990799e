"""A service mesh you can import."""
