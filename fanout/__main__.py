"""`python -m fanout`, and the command `fanout`."""

import sys


def main() -> None:
    """Run the command; Ctrl-C ends it without a traceback from its first moment on."""
    try:
        from fanout.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)  # as shells have it for SIGINT
    run()


if __name__ == "__main__":
    main()
