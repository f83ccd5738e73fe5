"""``python -m repro`` is the command ``repro``."""

import sys

from repro.cli.main import main

sys.exit(main())
