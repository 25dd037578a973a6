"""`python -m raysd` is the `raysd` command."""

from raysd.cli import main

if __name__ == "__main__":
    main()
