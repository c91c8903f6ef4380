"""`python -m service` is `embedding-service`."""

from service.cli import main

if __name__ == "__main__":
    main()
