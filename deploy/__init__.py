"""What it takes to run the service elsewhere: how it is watched, and the code that writes files of that kind."""
