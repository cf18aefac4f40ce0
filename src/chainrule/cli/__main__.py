"""`python -m chainrule.cli`: the same as the command `chainrule`."""

from . import main

if __name__ == "__main__":
    raise SystemExit(main())
