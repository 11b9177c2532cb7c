"""The picture book's server as a process: `python -m pipeline.picturebook '{"port": 8917, "size": 64}'`.

Anything left out has its default. `server.serving` starts it so.
"""

import json
import sys

from pipeline.picturebook.faults import Faults
from pipeline.picturebook.server import PORT
from pipeline.picturebook.web import Book, run

wanted = {"port": PORT, "size": 32, "faults": {}, "parent": None} | json.loads(sys.argv[1] if sys.argv[1:] else "{}")
parent = wanted.pop("parent")
sys.exit(run(Book(**wanted | {"faults": Faults(**wanted["faults"])}), parent))
