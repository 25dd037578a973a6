"""A real S3 server on loopback, and a proxy before it that fails on purpose."""

import http.client
import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FlakyProxy:
    """Forwards requests to an S3 server; every `period`-th is answered with a 500, every `period`-th after half of
    that is cut off.

    Requests with one of the headers that it `refuses` are answered as by a server that does not know them.
    """

    def __init__(self, port, period, refuses=()):
        self.counter, self.failures, self.connections = itertools.count(1), 0, 0
        self.requests = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                proxy.connections += 1
                super().setup()

            def handle_any(self):
                body = self.read_body()
                number = next(proxy.counter)
                proxy.requests.append((self.command, self.path.partition("?")[0]))
                if any(name in self.headers for name in refuses):
                    data = b"<Error><Code>NotImplemented</Code></Error>"
                    self.send_response(501)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                    return
                if period and number % period == 0:
                    proxy.failures += 1
                    self.send_response(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if period and number % period == period // 2:
                    proxy.failures += 1
                    self.close_connection = True
                    self.connection.close()
                    return
                server = http.client.HTTPConnection("127.0.0.1", port)
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("transfer-encoding", "expect", "content-length")
                }
                server.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
                answer = server.getresponse()
                data = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)
                server.close()

            def read_body(self):
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()


def s3_uri(port, bucket):
    return f"s3://{bucket}/runs?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
