"""namerd: delegation tables kept in one place, with history, and names bound by them for proxies that ask."""
