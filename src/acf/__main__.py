"""`python -m acf`, as `torchrun -m acf` starts it."""

from acf.cli import main

if __name__ == "__main__":
    main()
