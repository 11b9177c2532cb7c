import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # hostile_http.py and its like
