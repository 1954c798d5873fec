"""Real clients and servers."""
