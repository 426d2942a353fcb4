"""``python -m xcloudmask``: the command line."""

from xcloudmask.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
