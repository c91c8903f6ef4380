"""Our own REST over the tables: what is promised to clients, and nothing of another protocol."""
