"""A proxy that injects faults, before moto's S3 server."""

import dataclasses
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from proxy import Proxy

from infra import s3requests


@pytest.fixture
def proxy(moto_s3, speak, monkeypatch):
    """This process speaks through it, with short pauses between tries. `proxy.bucket` is the url of an empty one."""
    monkeypatch.setattr(s3requests, "PAUSE_SECONDS", 0.02)
    with Proxy(moto_s3.endpoint) as proxy:
        proxy.gateway = moto_s3
        proxy.bucket = moto_s3.make_bucket(f"faulty-{uuid.uuid4().hex[:8]}")
        monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", "10")  # on a busy machine, moto is no stalled server
        speak(dataclasses.replace(moto_s3, endpoint=proxy.endpoint).environment)
        yield proxy
