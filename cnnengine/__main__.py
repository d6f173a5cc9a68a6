"""``python -m cnnengine`` is the ``cnnengine`` command."""

import sys

from .cli import main

sys.exit(main())
