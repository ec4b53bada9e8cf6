"""Upper-cases datagrams: python3 uppercase_server.py PORT. Port 0 takes any free one."""
import socket
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
print("listening", server.getsockname()[1], flush=True)

while True:
    data, sender = server.recvfrom(1024)
    server.sendto(data.decode("utf-8").upper().encode("utf-8"), sender)
