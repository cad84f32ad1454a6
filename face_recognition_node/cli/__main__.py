"""Lets ``python -m face_recognition_node.cli`` be the ``face-recognition`` command."""

import sys

from face_recognition_node.cli import main

sys.exit(main())
