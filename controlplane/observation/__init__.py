"""What the mesh sees of its traffic: taps over many proxies, statistics of all, and who may look."""
