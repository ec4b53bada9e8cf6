"""Chats with the operator over TCP: python3 chat_client.py HOST PORT. One message, one answer; q leaves."""
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])

client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client.connect((host, port))

for line in sys.stdin:
    message = line.strip()
    if not message:
        continue
    if message == "q":
        break
    client.send(message.encode("utf-8"))
    answer = client.recv(1024)
    if not answer:
        print("the operator has gone")
        break
    print("operator says:", answer.decode("utf-8"), flush=True)

client.close()
