"""Open-loop load: requests that arrive when they are due, whatever the answers take; what the service makes of it."""
