"""``python -m fsrl_ext.cli``."""

import sys

from fsrl_ext.cli import main

sys.exit(main())
