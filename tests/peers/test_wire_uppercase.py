"""The uppercase listener to the byte: every code point against Python's own table, and every awkward datagram."""
import contextlib
import sys
import unicodedata
import unittest

from harness import Service, datagrams, eventually

LARGEST = 65_507
# How many letters may be known to this Python while their capitals are newer than it: a bound on an excuse.
LATER_CAPITALS = 16


def known(text):
    return all(unicodedata.category(c) not in ("Cn", "Cs") for c in text)


class Uppercase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        uppercase = {"protocol": "uppercase"}
        cls.service = Service(
            uppercase=uppercase,
            replacing=uppercase | {"invalid": "replace"},
            tame=uppercase | {"max_amplification": 1.0},
            short=uppercase | {"limits": {"max_message_bytes": 100}},
            wildcard=uppercase | {"bind": "0.0.0.0:0"},
        ).during(cls)

    def asker(self, listener, host="127.0.0.1"):
        return contextlib.closing(datagrams(self.service.port(listener), host))

    def ask(self, asker, question):
        asker.send(question)
        return asker.recv(1 << 17)

    def assert_dropped(self, listener, question):
        """No answer, one count; a datagram sent after it is answered, and by one that is its own."""
        before = self.service.dropped(listener)
        with self.asker(listener) as asker:
            asker.send(question)
            self.assertEqual(self.ask(asker, b"after"), b"AFTER")
        eventually(lambda: self.service.dropped(listener) == before + 1, "one more datagram counted as dropped")

    def test_every_code_point_that_both_know(self):
        letters = [c for c in map(chr, range(sys.maxunicode + 1)) if c != "\n" and known(c)]
        later = []
        with self.asker("uppercase") as asker:
            for start in range(0, len(letters), 2_000):
                batch = letters[start : start + 2_000]
                answers = self.ask(asker, "\n".join(batch).encode()).decode().split("\n")
                self.assertEqual(len(answers), len(batch))
                for letter, answer in zip(batch, answers):
                    if answer != letter.upper() and not known(answer):
                        later.append(f"U+{ord(letter):04X}")
                        continue
                    self.assertEqual(answer, letter.upper(), f"U+{ord(letter):04X}")
        if later:
            print(f"capitals newer than Unicode {unicodedata.unidata_version}: {' '.join(later)}", file=sys.stderr)
        self.assertLessEqual(len(later), LATER_CAPITALS)

    def test_words(self):
        with self.asker("uppercase") as asker:
            for word in ("straße", "ŉ", "ΐ", "ﬃ", "ὀδυσσεύς", "ǆ", "i\u0307", "a\0b\r\n", "😀", "\ufeffx"):
                self.assertEqual(self.ask(asker, word.encode()).decode(), word.upper())

    def test_an_empty_datagram(self):
        with self.asker("uppercase") as asker:
            self.assertEqual(self.ask(asker, b""), b"")

    def test_the_largest_datagram(self):
        with self.asker("uppercase") as asker:
            self.assertTrue(self.ask(asker, b"a" * LARGEST) == b"A" * LARGEST)
            three_times = "ΐ" * (LARGEST // 6)
            self.assertTrue(self.ask(asker, three_times.encode()).decode() == three_times.upper())

    def test_boundaries_are_kept(self):
        with self.asker("uppercase") as asker:
            questions = [b"a" * n for n in (1, 0, 1400, 1, 9000, 0, 3)]
            for question in questions:
                asker.send(question)
            answers = [asker.recv(1 << 17) for _ in questions]
        self.assertEqual(sorted(answers), sorted(q.upper() for q in questions))

    def test_invalid_text_is_dropped_and_counted(self):
        for question in (b"\xff", b"abc\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"):
            self.assert_dropped("uppercase", question)

    def test_invalid_text_is_replaced_where_asked(self):
        with self.asker("replacing") as asker:
            for question in (b"a\xffb", b"abc\xc3", b"\xe2\x82x", b"\xf0\x9f\x98a", b"\xed\xa0\x80"):
                self.assertEqual(self.ask(asker, question).decode(), question.decode(errors="replace").upper())

    def test_what_would_not_fit_is_dropped_and_counted(self):
        self.assert_dropped("uppercase", ("ΐ" * 30_000).encode())
        self.assert_dropped("short", b"a" * 101)
        self.assert_dropped("tame", "ŉ".encode())
        with self.asker("tame") as asker:
            self.assertEqual(self.ask(asker, "straße".encode()), b"STRASSE")

    def test_the_answer_comes_from_the_address_asked(self):
        for host in ("127.0.0.1", "127.0.0.2", "127.9.9.9"):
            with self.asker("wildcard", host) as asker:
                self.assertEqual(self.ask(asker, b"hello"), b"HELLO")


if __name__ == "__main__":
    unittest.main()
