"""What the control plane costs, and how soon proxies learn."""
