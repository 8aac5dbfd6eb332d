"""The command `ssdir`; `python -m ssdir`, where it is not on the path."""

import signal
import sys

from ssdir.errors import EXIT_INTERRUPTED, INTERRUPTED, was_interrupted


def main() -> None:
    """Entry point. Ctrl-C ends even the import of the commands without a traceback."""
    try:
        from ssdir.cli import main as run

        run()
    except (KeyboardInterrupt, RuntimeError, ImportError) as error:
        if not was_interrupted(error):
            raise
        sys.stderr.write(f"{INTERRUPTED}\n")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        # Nothing is left to undo while the interpreter ends, so signals may end it at once, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    main()
