"""The proxy as its users and neighbours see it: one scenario per promise."""
