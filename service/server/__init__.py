"""The processes of a running service: one supervisor, its workers, and the channel between them."""
