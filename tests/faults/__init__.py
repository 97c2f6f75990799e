"""Faults to survive: of endpoints, of clients, of the machine."""
