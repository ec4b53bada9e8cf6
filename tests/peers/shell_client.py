"""Runs commands on another machine: python3 shell_client.py HOST PORT. One command a line; q leaves."""
import json
import socket
import struct
import sys

host, port = sys.argv[1], int(sys.argv[2])

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((host, port))

for line in sys.stdin:
    command = line.strip()
    if not command:
        continue
    if command == "q":
        break
    client.send(command.encode("utf-8"))

    # First how long the header is, then the header, then what the command printed.
    header_size = struct.unpack("i", client.recv(4))[0]
    header = json.loads(client.recv(header_size).decode("utf-8"))
    total, received = header["len"], b""
    while len(received) < total:
        received += client.recv(1024)
    print(received.decode("utf-8"), flush=True)

client.close()
