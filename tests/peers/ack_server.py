"""Says "received data!!" to everything: python3 ack_server.py PORT. Port 0 takes any free one."""
import socket
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
            data = connection.recv(1024)
        except ConnectionResetError:
            break
        if not data:
            break
        connection.send(b"received data!!")
    connection.close()
