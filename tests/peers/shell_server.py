"""Runs the commands it is sent: python3 shell_server.py PORT. Port 0 takes any free one."""
import json
import socket
import struct
import subprocess
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen(5)
print("listening", server.getsockname()[1], flush=True)

while True:
    connection, address = server.accept()
    while True:
        try:
            command = connection.recv(1024)
        except ConnectionResetError:
            break
        if not command:
            break
        process = subprocess.Popen(
            command.decode("utf-8"), shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stdout, stderr = process.communicate()
        header = json.dumps({"filename": "cls.avi", "len": len(stdout) + len(stderr)}).encode("utf-8")
        connection.send(struct.pack("i", len(header)))
        connection.send(header)
        connection.send(stdout)
        connection.send(stderr)
    connection.close()
