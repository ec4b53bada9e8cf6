"""A bot at the operator's desk: takes whoever waits longest, answers all that they said, gives them back, and goes on.

usage: bot.py ADDRESS LISTENER [NAME]
stubs: python3 -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/switchboard/v1/*.proto
Killed or cut off it loses nothing: what it held goes back to the queue in time, and no message is answered twice.
"""
import collections
import queue
import random
import sys
import time

import grpc
from switchboard.v1 import chat_pb2 as desk
from switchboard.v1.chat_pb2_grpc import ChatServiceStub

HEARTBEAT, BACK_OFF = 15.0, (0.2, 30.0)  # seconds; a heartbeat renews the claims
RACES = {"NOTHING_WAITS", "ALREADY_ANSWERED", "NOTHING_TO_ANSWER", "CONVERSATION_CLOSED", "CONVERSATION_CLAIMED"}


def answer(text):
    return f"you said: {text}"  # put yours here


class Seat:
    """One attached stream: inputs go out by a queue, and are answered by `done` or `error` in their order."""

    def __init__(self, stub, listener, name):
        self.listener, self.outgoing, self.asked = listener, queue.SimpleQueue(), collections.deque()
        self.unanswered = {}  # of each conversation: sequence and text
        self.synced, self.somebody_waits, self.held = False, False, None
        self.outgoing.put({"start": desk.AttachStart(parent=listener, operator=name, replay=1000)})
        self.events = stub.AttachDesk(self.inputs())

    def inputs(self):
        while True:
            try:
                yield desk.AttachDeskRequest(**self.outgoing.get(timeout=HEARTBEAT))
            except queue.Empty:
                yield desk.AttachDeskRequest(heartbeat=desk.Heartbeat())

    def ask(self, verb, request):
        self.asked.append(verb)
        self.outgoing.put({verb: request})

    def hear(self, event):
        kind = event.WhichOneof("event")
        if kind == "conversation":
            self.somebody_waits |= event.conversation.state == desk.Conversation.STATE_WAITING
            if event.conversation.state == desk.Conversation.STATE_CLOSED:
                self.unanswered.pop(event.conversation.name, None)
        elif kind == "message":
            said, of = event.message, self.unanswered.setdefault(event.message.conversation, {})
            of.pop(said.in_reply_to, None)
            if said.author == desk.ChatMessage.AUTHOR_PEER:
                of[said.sequence] = said.text
        elif kind in ("synced", "gap"):  # behind a gap all is told anew
            self.synced = kind == "synced"
            if not self.synced:
                self.unanswered.clear()
        elif kind == "done" and self.asked.popleft() == "claim":
            self.held, self.somebody_waits = event.done.conversation, True
        elif kind == "error":
            self.asked.popleft()
            if event.error.reason not in RACES:
                print(event.error.reason, event.error.message, file=sys.stderr)
                time.sleep(1)

    def work(self):
        if not self.synced or self.asked:
            return
        if self.held:
            for sequence, text in self.unanswered.pop(self.held, {}).items():
                self.ask("reply", desk.ReplyConversationRequest(name=self.held, in_reply_to=sequence, text=answer(text)))
            self.ask("release", desk.ReleaseConversationRequest(name=self.held))
            self.held = None
        elif self.somebody_waits:
            self.somebody_waits = False
            self.ask("claim", desk.ClaimConversationRequest(name=self.listener))


def main(address, listener, name="bot"):
    pause = BACK_OFF[0]
    while True:
        try:
            with grpc.insecure_channel(address) as channel:
                seat = Seat(ChatServiceStub(channel), f"listeners/{listener}", name)
                for event in seat.events:
                    pause = BACK_OFF[0]
                    seat.hear(event)
                    seat.work()
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, BACK_OFF[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
