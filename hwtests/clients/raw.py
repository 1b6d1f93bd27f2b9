"""SigV4 and HTTP by hand, for the requests that no client library would send.

Signatures follow AWS's published description of Signature Version 4, with signed chunks and trailers.
"""

import datetime
import hashlib
import hmac
import http.client
import socket
import urllib.parse
from xml.etree import ElementTree

UNSIGNED = "UNSIGNED-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Answer:
    """Status, headers and body of a response; `code` is the error's code when the body is an error."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.code = None
        if self.body.startswith(b"<?xml") or self.body.startswith(b"<Error"):
            root = ElementTree.fromstring(self.body)
            if root.tag == "Error":
                self.code = root.findtext("Code")

    def __repr__(self):
        return f"{self.status} {self.code} {self.body[:200]!r}"


class Raw:
    """Signs and sends single requests."""

    def __init__(self, server, key=None, secret=None, region=None):
        self.address = server.address
        self.key = key or server.credentials["AWS_ACCESS_KEY_ID"]
        self.secret = secret or server.credentials["AWS_SECRET_ACCESS_KEY"]
        self.region = region or server.credentials["AWS_DEFAULT_REGION"]

    def sign(self, method, path, query="", headers=None, payload=None, skew_s=0):
        """Headers of a signed request, and what its chunks are signed with."""
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=skew_s)
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        headers = {name.lower(): str(value) for name, value in (headers or {}).items()}
        headers["host"] = "%s:%d" % self.address
        headers["x-amz-date"] = stamp
        headers["x-amz-content-sha256"] = payload or EMPTY_SHA256
        names = sorted(headers)
        pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
        canonical = [method, path, "&".join(f"{name}={value}" for name, value in pairs)]
        canonical += [f"{name}:{headers[name].strip()}" for name in names]
        canonical += ["", ";".join(names), headers["x-amz-content-sha256"]]
        hashed = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        signing = _hmac(b"AWS4" + self.secret.encode(), stamp[:8])
        for part in (self.region, "s3", "aws4_request"):
            signing = _hmac(signing, part)
        signature = _hmac(signing, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}").hex()
        credential = f"Credential={self.key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
        headers["authorization"] = f"AWS4-HMAC-SHA256 {credential}"
        return headers, (signing, stamp, scope, signature)

    def send(self, method, path, body=b"", query="", headers=None, payload=None, skew_s=0):
        """One request, signed over its body unless `payload` says otherwise."""
        payload = payload or hashlib.sha256(body).hexdigest()
        signed, _ = self.sign(method, path, query, headers, payload, skew_s)
        return self.exchange(method, path, query, signed, body)

    def exchange(self, method, path, query, headers, body):
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            target = f"{path}?{query}" if query else path
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if "content-length" not in headers:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def put_chunked(self, path, data, trailers=None, signed=True, chunk=64 * 1024, break_chunk=None, headers=None):
        """An `aws-chunked` put; `trailers` are sent behind the data, `break_chunk` spoils one signature."""
        trailers = trailers or {}
        if signed:
            payload = SIGNED_CHUNKS_TRAILER if trailers else SIGNED_CHUNKS
        else:
            payload = UNSIGNED_TRAILER
        headers = dict(headers or {})
        headers |= {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": len(data)}
        if trailers:
            headers["x-amz-trailer"] = ",".join(trailers)
        signed_headers, keys = self.sign("PUT", path, "", headers, payload)
        body = self._chunks(data, trailers, signed, chunk, break_chunk, keys)
        return self.exchange("PUT", path, "", signed_headers, body)

    @staticmethod
    def _chunks(data, trailers, signed, chunk, break_chunk, keys):
        signing, stamp, scope, previous = keys
        body = bytearray()
        pieces = [data[at : at + chunk] for at in range(0, len(data), chunk)] + [b""]
        for number, piece in enumerate(pieces):
            head = f"{len(piece):x}"
            if signed:
                text = f"AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{EMPTY_SHA256}\n"
                previous = _hmac(signing, text + hashlib.sha256(piece).hexdigest()).hex()
                shown = "0" * 64 if number == break_chunk else previous
                head += f";chunk-signature={shown}"
            body += head.encode() + b"\r\n" + piece
            if piece or not trailers:
                body += b"\r\n"
        lines = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        for name, value in trailers.items():
            body += f"{name}:{value}\r\n".encode()
        if trailers and signed:
            hashed = hashlib.sha256(lines.encode()).hexdigest()
            text = f"AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{previous}\n{hashed}"
            body += f"x-amz-trailer-signature:{_hmac(signing, text).hex()}\r\n".encode()
        if trailers:
            body += b"\r\n"
        return bytes(body)

    def begin_put(self, path, declared):
        """A connection on which the head of a put of `declared` bytes was sent."""
        headers, _ = self.sign("PUT", path, "", {"content-length": declared}, UNSIGNED)
        lines = [f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        connection = socket.create_connection(self.address, timeout=30)
        connection.sendall("\r\n".join(lines).encode())
        return connection

    def cut_off(self, path, declared, sent):
        """Begins a put of `declared` bytes, sends fewer and hangs up."""
        with self.begin_put(path, declared) as connection:
            connection.sendall(sent)


def quote(key):
    """A key as SigV4 wants it in a path."""
    return urllib.parse.quote(key, safe="/-_.~")
