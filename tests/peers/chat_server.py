"""An operator who answers at once: python3 chat_server.py PORT [ANSWER]. Without ANSWER, repeats what was said."""
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
        answer = sys.argv[2] if len(sys.argv) > 2 else "you said " + data.decode("utf-8")
        connection.send(answer.encode("utf-8"))
    connection.close()
