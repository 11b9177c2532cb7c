"""What no retry can change is refused at once, with what was given and what to do, and never with a secret."""

import re
import socket

import pytest

from infra import storage
from infra.s3 import request, session


def refused(call, *, status: type[Exception] = ValueError) -> str:
    with pytest.raises(status) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bucket_that_does_not_exist_is_named(proxy):
    url = f"{proxy.bucket}-misspelt/set"
    for call in (storage.names, storage.exists, storage.read, lambda url: storage.write(url, b"")):
        said = refused(lambda call=call: call(url))
        assert f"there is no bucket {url.removeprefix('s3://').removesuffix('/set')!r} at http://127.0.0.1" in said
    with pytest.raises(FileNotFoundError, match=f"^{proxy.bucket}/missing$"):
        storage.read(f"{proxy.bucket}/missing")


def test_missing_and_half_credentials_are_refused(proxy, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "AWS_SECRET_ACCESS_KEY" in refused(lambda: storage.read(f"{proxy.bucket}/x"))
    secret = proxy.gateway.secret_key
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = refused(lambda: storage.read(f"{proxy.bucket}/x"))
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in said
    assert secret not in said
    assert proxy.requests == []


@pytest.mark.parametrize("method", ["names", "exists", "read"])
def test_a_wrong_secret_is_refused_without_it(ceph_s3, speak, method):
    bucket = ceph_s3.make_bucket(f"refused-{method}")
    wrong = "w" + ceph_s3.secret_key[1:]
    speak(ceph_s3.environment | {"AWS_SECRET_ACCESS_KEY": wrong})
    said = refused(lambda: getattr(storage, method)(f"{bucket}/x"))
    assert f"refused by {ceph_s3.endpoint}" in said
    assert "check AWS_ACCESS_KEY_ID" in said
    assert wrong not in said
    assert ceph_s3.access_key not in said


def test_a_profile_that_does_not_exist_is_named(proxy, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in refused(lambda: storage.read(f"{proxy.bucket}/x"))


def test_a_host_that_does_not_exist_is_named(proxy, monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.misspelt.example")
    said = refused(lambda: storage.read(f"{proxy.bucket}/x"))
    assert "no such host as that of http://s3.misspelt.example; check AWS_ENDPOINT_URL" in said


def test_a_port_where_nothing_listens_is_an_error_that_may_pass(proxy, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    said = refused(lambda: storage.read(f"{proxy.bucket}/x"), status=ConnectionError)
    assert re.search("5 tries in . s at http://127.0.0.1:1, the last one: no connection", said)


def test_an_endpoint_with_a_password_is_refused_and_the_password_not_repeated(proxy, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:hunter2@127.0.0.1:1")
    said = refused(lambda: storage.read(f"{proxy.bucket}/x"))
    assert "the endpoint http://127.0.0.1:1 was given with a user or password" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("url", ["s3://key:hunter2@bucket/x", "s3://key:hun/ter2@bucket", "s3://hunter2@bucket/x"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    for call in (storage.absolute, storage.local, storage.exists, storage.names, storage.read, storage.remove):
        said = refused(lambda call=call: call(url))
        assert "AWS_ACCESS_KEY_ID" in said
        assert "ter2" not in said


def test_a_whole_bucket_is_never_removed(proxy):
    storage.write(f"{proxy.bucket}/x", b"")
    for url in (proxy.bucket, f"{proxy.bucket}/"):
        assert "whole bucket" in refused(lambda url=url: storage.remove(url))
    assert storage.names(proxy.bucket) == ["x"]
    assert "names no bucket" in refused(lambda: storage.names("s3://"))


def test_a_folder_is_removed_without_its_namesakes(proxy):
    for key in ("step-1", "step-1/a", "step-1/b/c", "step-10/a", "step"):
        storage.write(f"{proxy.bucket}/{key}", b"")
    storage.remove(f"{proxy.bucket}/step-1")
    assert storage.find(proxy.bucket) == ["step", "step-10/a"]


def test_the_number_of_tries_and_the_timeout_are_the_users(proxy, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert "2 tries" in refused(lambda: storage.read("s3://bucket/x"), status=ConnectionError)
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    (tmp_path / "config").write_text("[default]\nmax_attempts = 4\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert "4 tries" in refused(lambda: storage.read("s3://bucket/x"), status=ConnectionError)
    for wrong in ("soon", "0", "-1", "nan"):
        monkeypatch.setenv("ANTIDOTE_S3_TIMEOUT", wrong)
        assert f"not '{wrong}'" in refused(lambda: storage.read("s3://bucket/x"))
    monkeypatch.delenv("ANTIDOTE_S3_TIMEOUT")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "many")
    assert "settings" in refused(lambda: storage.read("s3://bucket/x"))


def test_by_default_a_stalled_server_costs_a_minute_and_a_half_at_most():
    waits = sum(request.PAUSE_SECONDS * 2**tries for tries in range(session.ATTEMPTS - 1))
    assert session.ATTEMPTS * session.TIMEOUT_SECONDS + waits <= 90


def test_another_endpoint_in_the_environment_counts_at_once(proxy, monkeypatch):
    url = f"{proxy.bucket}/x"
    storage.write(url, b"1")
    asked = len(proxy.requests)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.gateway.endpoint)
    assert storage.read(url) == b"1"
    assert len(proxy.requests) == asked
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    assert storage.read(url) == b"1"
    assert len(proxy.requests) == asked + 1


def test_what_is_sent_needs_nothing_that_only_amazon_has(proxy, monkeypatch):
    heads = []
    answer = type(proxy)._answer
    monkeypatch.setattr(
        type(proxy),
        "_answer",
        lambda self, client, stream, head: heads.append(head) or answer(self, client, stream, head),
    )
    storage.write(f"{proxy.bucket}/x", b"1" * 100_000)
    (head,) = (head.lower() for head in heads)
    assert b"expect:" not in head
    assert b"x-amz-checksum" not in head
    assert b"aws-chunked" not in head
    assert b"x-amz-content-sha256: unsigned" not in head
