"""Chats with the operator over UDP: python3 qq_client.py HOST PORT. One message, one answer; q leaves."""
import socket
import sys

server = (sys.argv[1], int(sys.argv[2]))

client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

for line in sys.stdin:
    message = line.strip()
    if not message:
        continue
    if message == "q":
        break
    client.sendto(message.encode("utf-8"), server)
    answer, sender = client.recvfrom(1024)
    print("operator says:", answer.decode("utf-8"), flush=True)

client.close()
