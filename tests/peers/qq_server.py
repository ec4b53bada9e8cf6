"""An operator who answers datagrams: python3 qq_server.py PORT [ANSWER]. Without ANSWER, repeats what was said."""
import socket
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
print("listening", server.getsockname()[1], flush=True)

while True:
    data, sender = server.recvfrom(1024)
    answer = sys.argv[2] if len(sys.argv) > 2 else "you said " + data.decode("utf-8")
    server.sendto(answer.encode("utf-8"), sender)
