"""Linkerd 1.x configurations: what is read of them, and how they are served."""
