"A server on this machine for tests of downloads, and archives made in memory."
import http.server
import io
import threading
import zipfile
from contextlib import contextmanager
import numpy as np

class Server(http.server.BaseHTTPRequestHandler):
    "Serves `data` with ranges and a mark for its version; `cut` breaks answers off, `tag` None leaves the mark out"
    def do_GET(self):
        s = self.server
        wanted = self.headers.get('Range')
        s.asked.append(wanted)
        if s.data is None:
            self.send_error(404)
            return
        same = s.tag is None or self.headers.get('If-Range') == s.tag
        start = int(wanted[6:-1]) if wanted and same and s.ranges else 0
        if start >= len(s.data):
            self.answer(416, 0, f'bytes */{len(s.data)}' if s.tag else None)
            return
        self.answer(206 if start else 200, len(s.data) - start)
        self.wfile.write(s.data[start:][:s.cut])
    def answer(self, code, length, content_range=None):
        self.send_response(code)
        self.send_header('Content-Length', str(length))
        if self.server.tag:
            self.send_header('ETag', self.server.tag)
        if content_range:
            self.send_header('Content-Range', content_range)
        self.end_headers()
    def log_message(self, *args):
        "No log between the dots of pytest."

@contextmanager
def serving(monkeypatch):
    "A server with 700,000 random bytes; its attributes may be changed while it runs"
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
    s.data = np.random.default_rng(0).bytes(700_000)
    s.tag = '"a"'
    s.cut = None
    s.ranges = True
    s.asked = []
    s.url = f'http://127.0.0.1:{s.server_port}/'
    threading.Thread(target=s.serve_forever, daemon=True).start()
    try:
        yield s
    finally:
        s.shutdown()
        s.server_close()

def archive(**files):
    "A zip; in the names `__` stands for a slash and `_dot_` for a dot"
    b = io.BytesIO()
    with zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name.replace('__', '/').replace('_dot_', '.'), data)
    return b.getvalue()
