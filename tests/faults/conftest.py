"""A proxy that injects faults, before moto's S3 server."""

import dataclasses
import uuid

import pytest

from infra.s3 import request
from tests.support.proxy import Proxy


@pytest.fixture
def proxy(moto_s3, speak, monkeypatch):
    """This process speaks through it, with short pauses between tries. `proxy.bucket` is the url of an empty one."""
    monkeypatch.setattr(request, "PAUSE_SECONDS", 0.02)
    with Proxy(moto_s3.endpoint) as proxy:
        proxy.gateway = moto_s3
        proxy.bucket = moto_s3.make_bucket(f"faulty-{uuid.uuid4().hex[:8]}")
        monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", "10")  # on a busy machine, moto is no stalled server
        speak(dataclasses.replace(moto_s3, endpoint=proxy.endpoint).environment)
        yield proxy
