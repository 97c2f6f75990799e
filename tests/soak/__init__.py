"""Long runs in which every request is accounted for."""
