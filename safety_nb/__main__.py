"""``python -m safety_nb`` is ``safety-nb``."""

from safety_nb.cli import main

if __name__ == "__main__":
    main()
