"""`python -m headwater`, the same as `headwater`."""

from headwater.cli.app import main

if __name__ == "__main__":
    main()
