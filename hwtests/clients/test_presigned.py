"""Presigned URLs: used as they are, spoilt, expired."""

import time
import urllib.error
import urllib.request

from content import content


def fetch(url, method="GET", data=None, headers=None):
    request = urllib.request.Request(url, method=method, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def sign(s3, call, bucket, expires_s=300, **more):
    return s3.generate_presigned_url(call, Params={"Bucket": bucket, "Key": "a b/ü+", **more}, ExpiresIn=expires_s)


def test_get_put_head_and_delete(server, bucket):
    s3 = server.client(signature_version="s3v4")
    data = content("presigned", 300_000)
    assert fetch(sign(s3, "put_object", bucket), "PUT", data)[0] == 200
    assert fetch(sign(s3, "get_object", bucket)) == (200, data)
    assert fetch(sign(s3, "head_object", bucket), "HEAD") == (200, b"")
    ranged = fetch(sign(s3, "get_object", bucket), headers={"Range": "bytes=5-9"})
    assert ranged == (206, data[5:10])
    shown = sign(s3, "get_object", bucket, ResponseContentDisposition='attachment; filename="x"')
    assert fetch(shown) == (200, data)
    assert fetch(sign(s3, "delete_object", bucket), "DELETE")[0] == 204
    assert fetch(sign(s3, "get_object", bucket))[0] == 404


def test_spoilt_and_expired_urls_are_refused(server, bucket):
    s3 = server.client(signature_version="s3v4")
    s3.put_object(Bucket=bucket, Key="a b/ü+", Body=b"x")
    url = sign(s3, "get_object", bucket)
    last = url[-1]
    spoilt = url[:-1] + ("0" if last != "0" else "1")
    for wrong in (spoilt, url.replace("X-Amz-Expires=300", "X-Amz-Expires=3000"), url.replace("a%20b", "a%20c")):
        status, body = fetch(wrong)
        assert status == 403 and b"SignatureDoesNotMatch" in body, body
    assert fetch(url, "PUT", b"y")[0] == 403
    short = sign(s3, "get_object", bucket, expires_s=1)
    time.sleep(2.5)
    status, body = fetch(short)
    assert status == 403 and b"AccessDenied" in body, body
    assert s3.get_object(Bucket=bucket, Key="a b/ü+")["Body"].read() == b"x"
