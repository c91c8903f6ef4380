"""What runs inside the servers of peers; nothing here imports anything of this repository."""
