"""What a step of the GPU kit may do, for its tests: python -m tests.support.gpu_steps WHAT FOLDER --device cpu"""

import json
import subprocess
import sys
import time
from pathlib import Path

WHAT, FOLDER = sys.argv[1], Path(sys.argv[2])
assert sys.argv[3:] == ["--device", "cpu"]
with open(FOLDER / "begun", "a") as file:
    file.write(f"{WHAT}\n")
print("a word before the result")
if WHAT == "breaks":
    raise RuntimeError("no kernel image is available")
if WHAT == "crowds":
    child = subprocess.Popen(["sleep", "300"])
    (FOLDER / "child").write_text(f"{child.pid}\n")
if WHAT in ("hangs", "crowds"):
    time.sleep(300)
if WHAT == "mumbles":
    print("done")
else:
    print(
        json.dumps({"8": {"ours_images_per_second": 1234.5} | ({"not_measured": "the rest"} if WHAT == "part" else {})})
    )
