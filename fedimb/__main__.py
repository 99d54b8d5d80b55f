"""``python -m fedimb``: the command line, for whoever has this Python and not the script beside it."""

import sys

from fedimb.cli.main import main

sys.exit(main())
