"""What names cost: ten thousand of them in one proxy, and an edit of a table on its way to a hundred: `python -m bench.binding`."""
