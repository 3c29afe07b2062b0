"""HTTP by hand: what the tests of the wire send and read, byte by byte."""
import json
import socket
import struct

JSON = b"Content-Type: application/json\r\n"
GET = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n"
LAST_GET = b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def dial(daemon, seconds=60):
    """A connection to daemon.port, or to the path daemon.path."""
    path = getattr(daemon, "path", None)
    connection = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    connection.settimeout(seconds)
    connection.connect(str(path) if path else ("127.0.0.1", daemon.port))
    if not path:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_to_end(connection):
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data


def read_until(connection, mark):
    """Everything up to the read that brought the mark, or to the end."""
    data = b""
    while mark not in data and (piece := connection.recv(1 << 16)):
        data += piece
    return data


def talk(daemon, data):
    """Sends the bytes, closes nothing, and returns everything until the daemon closes."""
    with dial(daemon) as connection:
        connection.sendall(data)
        return read_to_end(connection)


def read_answer(connection, data=b""):
    """One answer with a Content-Length: (status, headers, body, bytes after it)"""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        assert piece, f"closed after {data!r}"
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    wanted = int(headers.get("content-length", 0))
    while len(rest) < wanted:
        rest += connection.recv(1 << 16)
    return int(lines[0].split()[1]), headers, rest[:wanted], rest[wanted:]


def post(path, body, extra=b""):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: a\r\n%s%sContent-Length: %d\r\n\r\n%s" % (path.encode(), JSON, extra, len(text), text)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_chunks(data):
    """(head, chunks) of an answer that is chunked to its last byte."""
    head, rest = data.split(b"\r\n\r\n", 1)
    chunks = []
    while True:
        size, rest = rest.split(b"\r\n", 1)
        n = int(size, 16)
        assert rest[n:n + 2] == b"\r\n"
        if n == 0:
            assert rest == b"\r\n"
            return head, chunks
        chunks.append(rest[:n])
        rest = rest[n + 2:]
