"""``python -m elude`` is the command ``elude``."""

from elude.cli import main

if __name__ == "__main__":
    main()
