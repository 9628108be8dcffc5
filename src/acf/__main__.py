"""The program `acf`, also `python -m acf`, as torchrun starts it."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C before it can answer, or after its end, stops the program without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # which would print a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from acf.cli import main as run  # takes a moment, seconds where the disk is slow

    run()


if __name__ == "__main__":
    main()
