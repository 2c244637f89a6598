"""Google's XML API in front of fake-gcs-server, which speaks the JSON API and only a part of the XML one.

The object store's client speaks the XML API alone. What of it fake-gcs-server (1.54) does not do, is put here into the calls
of the JSON API that mean the same. Whether a put with a condition is let in, what an object's content and generation are, what
a list finds and in which order: that is the emulator's doing, and never decided here.

- `PUT /bucket/object` is refused there ("invalid uploadType"), but for signed URLs, which skip the condition. Here it becomes
  an upload of the kind `multipart` (of the others it takes no conditions either), and the header
  `x-goog-if-generation-match` the parameter `ifGenerationMatch`.
- `GET /bucket?list-type=2` ignores there where a list starts and how long a page is. Here it becomes a list of the JSON API,
  told as XML. `startOffset` includes the name itself, `start-after` does not: that one name is left out.
- An upload in parts (`POST ?uploads`, `PUT ?partNumber`, `POST ?uploadId`) is not there. The parts wait here, in memory, and
  become one upload as above.
- Who asks is not looked at there. Here it must be the service account of the file that this makes, by a token that it signed.

Reads, heads and deletions go through as they are. What the emulator does not answer is not answered here either: the
connection ends, as if there were nothing between.
"""

import argparse
import hashlib
import http.client
import json
import secrets
import threading
import xml.etree.ElementTree as xml
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit
from xml.sax.saxutils import escape

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ACCOUNT = "onhand@tests.iam.gserviceaccount.com"
# Of one connection, so of no meaning for the next one; and what this server says of itself.
NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


def make_service_account(path):
    """Writes the file that Google gives for a service account; returns the key that checks what was signed with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": secrets.token_hex(20),
        "private_key": key.private_bytes(encoding, kind, serialization.NoEncryption()).decode(),
        "client_email": ACCOUNT,
    }
    path.write_text(json.dumps(account))
    return key.public_key()


class Uploads:
    """Uploads in parts that are not complete."""

    def __init__(self):
        self.lock = threading.Lock()
        self.parts = {}

    def begin(self):
        upload = secrets.token_hex(16)
        with self.lock:
            self.parts[upload] = {}
        return upload

    def add(self, upload, number, content):
        """The part's tag; none if there is no such upload."""
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        with self.lock:
            if upload not in self.parts:
                return None
            self.parts[upload][number] = (tag, content)
        return tag

    def content(self, upload, named):
        """What the named parts are together; none if one is not what was sent."""
        with self.lock:
            parts = dict(self.parts.get(upload, {}))
        if not named or any(parts.get(number, ("",))[0] != tag for number, tag in named):
            return None
        return b"".join(parts[number][1] for number, _ in named)

    def end(self, upload):
        with self.lock:
            return self.parts.pop(upload, None) is not None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Requests are not logged: they are many."""

    def do_GET(self):
        self.asked(self.list if "/" not in self.path.lstrip("/").split("?")[0] else self.pass_on)

    def do_HEAD(self):
        self.asked(self.pass_on)

    def do_PUT(self):
        self.asked(self.put)

    def do_POST(self):
        self.asked(self.parts)

    def do_DELETE(self):
        self.asked(self.delete)

    def asked(self, answer):
        length = int(self.headers.get("content-length") or 0)
        self.body = self.rfile.read(length)
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        bucket, _, name = url.path.lstrip("/").partition("/")
        self.bucket, self.name = unquote(bucket), unquote(name)
        if not self.knows_who_asks():
            return self.refuse(401, "AuthenticationRequired")
        try:
            answer()
        except (OSError, http.client.HTTPException) as error:
            print(f"no answer to {self.command} {self.path}: {error!r}", flush=True)
            self.close_connection = True

    def knows_who_asks(self):
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        try:
            jwt.decode(token, self.server.public_key, algorithms=["RS256"], issuer=ACCOUNT)
        except jwt.InvalidTokenError:
            return False
        return kind == "Bearer"

    def put(self):
        if "uploadId" in self.query:
            tag = self.server.uploads.add(self.query["uploadId"], int(self.query["partNumber"]), self.body)
            return self.send(200, {"etag": tag}) if tag else self.refuse(404, "NoSuchUpload")
        if "x-goog-copy-source" in self.headers or self.query:
            return self.refuse(501, "NotImplemented")
        done, made = self.upload(self.body, self.headers.get("x-goog-if-generation-match"))
        if done:
            self.send(200, {"etag": f'"{made["etag"]}"', "x-goog-generation": made["generation"]})

    def parts(self):
        uploads = self.server.uploads
        if "uploads" in self.query:
            return self.send_xml("InitiateMultipartUploadResult", f"<UploadId>{uploads.begin()}</UploadId>")
        upload = self.query.get("uploadId")
        if upload is None:
            return self.refuse(501, "NotImplemented")
        named = [(int(part.findtext("{*}PartNumber")), part.findtext("{*}ETag"))
                 for part in xml.fromstring(self.body).iterfind("{*}Part")]
        content = uploads.content(upload, named)
        if content is None:
            return self.refuse(400, "InvalidPart")
        done, made = self.upload(content, None)
        if done:
            uploads.end(upload)
            tag = f'<ETag>"{made["etag"]}"</ETag>'
            self.send_xml("CompleteMultipartUploadResult", tag, {"x-goog-generation": made["generation"]})

    def delete(self):
        if "uploadId" not in self.query:
            return self.pass_on()
        ended = self.server.uploads.end(self.query["uploadId"])
        return self.send(204) if ended else self.refuse(404, "NoSuchUpload")

    def upload(self, content, generation):
        """Has the emulator take an object. If it does not, its answer is passed on."""
        query = {"uploadType": "multipart"}
        if generation is not None:
            query["ifGenerationMatch"] = generation
        path = f"/upload/storage/v1/b/{quote(self.bucket, safe='')}/o?{urlencode(query)}"
        kind = self.headers.get("content-type", "application/octet-stream")
        boundary = secrets.token_hex(16)
        told = f"--{boundary}\r\ncontent-type: application/json\r\n\r\n{json.dumps({'name': self.name})}\r\n"
        content = f"{told}--{boundary}\r\ncontent-type: {kind}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
        headers = {"content-type": f"multipart/related; boundary={boundary}"}
        status, headers, answer = self.ask("POST", path, headers, content)
        if status != 200:
            self.send(status, headers, answer)
            return False, None
        return True, json.loads(answer)

    def list(self):
        after = self.query.get("start-after")
        query = {"prefix": self.query.get("prefix"), "delimiter": self.query.get("delimiter"), "startOffset": after,
                 "pageToken": self.query.get("continuation-token"), "maxResults": self.query.get("max-keys", "1000")}
        query = urlencode({name: value for name, value in query.items() if value})
        status, headers, answer = self.ask("GET", f"/storage/v1/b/{quote(self.bucket, safe='')}/o?{query}", {})
        if status != 200:
            return self.send(status, headers, answer)
        found = json.loads(answer)
        told = [f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>" for prefix in found.get("prefixes", ())]
        told += [
            f"<Contents><Key>{escape(item['name'])}</Key><Size>{item['size']}</Size><LastModified>{item['updated']}"
            f"</LastModified><ETag>&quot;{item['etag']}&quot;</ETag><Generation>{item['generation']}</Generation></Contents>"
            for item in found.get("items", ()) if item["name"] != after
        ]
        if found.get("nextPageToken"):
            told.append(f"<NextContinuationToken>{escape(found['nextPageToken'])}</NextContinuationToken>")
        self.send_xml("ListBucketResult", "".join(told))

    def pass_on(self):
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON | {"host"}}
        self.send(*self.ask(self.command, self.path, headers, self.body or None))

    def ask(self, method, path, headers, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.emulator)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def send(self, status, headers=None, content=b""):
        length = len(content)
        self.send_response(status)
        for name, value in (headers or {}).items():
            # The length of what a head would have brought is the emulator's to say.
            if self.command == "HEAD" and name.lower() == "content-length":
                length = value
            elif name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def send_xml(self, name, content, headers=None):
        text = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{content}</{name}>'
        self.send(200, {"content-type": "application/xml", **(headers or {})}, text.encode())

    def refuse(self, status, code):
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>'
        self.send(status, {"content-type": "application/xml"}, text.encode())


def main():
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--port", type=int, required=True)
    given.add_argument("--emulator", type=int, required=True, help="the port of fake-gcs-server")
    given.add_argument("--service-account", type=Path, required=True, help="the file to make")
    given = given.parse_args()
    server = Server(("127.0.0.1", given.port), Front)
    server.emulator, server.uploads = given.emulator, Uploads()
    server.public_key = make_service_account(given.service_account)
    print("serves", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
